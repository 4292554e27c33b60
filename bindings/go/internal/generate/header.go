package main

import (
	"fmt"
	"regexp"
	"strings"
)

// What libnbd.h declares, as far as the binding needs it.

// A constant is a #define with a value.
type constant struct {
	name, value string
}

// A param is a parameter of a function.
type param struct {
	ctype, name string
}

// A function is one of C, without the handle it takes first.
type function struct {
	name    string // without nbd_
	returns string
	params  []param
	doc     string
	section string
}

// A header is all of it.
type header struct {
	constants []constant
	functions []function
}

var (
	defines      = regexp.MustCompile(`(?m)^#define LIBNBD_([A-Z0-9_]+) (0x[0-9a-f]+U?|[0-9]+|"[^"]*")$`)
	declarations = regexp.MustCompile(`(?s)/\* ---- (.*?)\*/|(/\*[^*]*(?:\*[^/][^*]*)*\*/\n)?extern ([^;]*?)\bnbd_([a-z0-9_]+) \(([^;]*?)\)[^;]*;`)
	attributes   = regexp.MustCompile(`(?s)LIBNBD_ATTRIBUTE.*`)
	spaces       = regexp.MustCompile(`\s+`)
	declared     = regexp.MustCompile(`^(.*?)([a-z_0-9]+)$`)
)

// These are no methods: the binding has its own ways.
var notMethods = map[string]bool{"create": true, "close": true, "get_error": true, "get_errno": true}

func parseHeader(text string) (*header, error) {
	found := &header{}
	for _, match := range defines.FindAllStringSubmatch(text, -1) {
		if strings.HasPrefix(match[1], "HAVE_") {
			continue
		}
		value := strings.TrimSuffix(match[2], "U")
		found.constants = append(found.constants, constant{match[1], value})
	}
	section := ""
	for _, match := range declarations.FindAllStringSubmatch(text, -1) {
		if match[4] == "" {
			section = squeeze(match[1])
			continue
		}
		if notMethods[match[4]] {
			continue
		}
		f := function{
			name:    match[4],
			returns: squeeze(match[3]),
			doc:     comment(match[2]),
			section: section,
		}
		list := attributes.ReplaceAllString(match[5], "")
		list = strings.TrimSuffix(strings.TrimSpace(list), ")")
		words := strings.Split(list, ",")
		if squeeze(words[0]) != "struct nbd_handle *h" {
			return nil, fmt.Errorf("nbd_%s takes no handle first", f.name)
		}
		for _, word := range words[1:] {
			parts := declared.FindStringSubmatch(squeeze(word))
			if parts == nil {
				return nil, fmt.Errorf("nbd_%s: what is the parameter '%s'?", f.name, squeeze(word))
			}
			f.params = append(f.params, param{squeeze(parts[1]), parts[2]})
		}
		found.functions = append(found.functions, f)
	}
	return found, nil
}

func squeeze(text string) string {
	return strings.TrimSpace(spaces.ReplaceAllString(text, " "))
}

// The words of a comment.
func comment(text string) string {
	text = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(text), "/*"), "*/")
	return squeeze(strings.ReplaceAll(text, "\n *", "\n"))
}
