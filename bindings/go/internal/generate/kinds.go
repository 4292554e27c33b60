package main

import (
	"fmt"
	"regexp"
	"strings"
)

// What C does not say: which numbers are enumerations, flags, truth, or nothing but success.

// An enumeration is a type of Go for constants that begin alike.
type enumeration struct {
	prefix, name, underlying, doc string
}

var enumerations = []enumeration{
	{"TLS_", "Tls", "int", "Tls says whether to use TLS."},
	{"SIZE_", "Size", "int", "Size says which block size is meant."},
	{"CMD_FLAG_", "CmdFlag", "uint32", "CmdFlag is a set of flags of a command."},
	{"HANDSHAKE_FLAG_", "HandshakeFlag", "uint32", "HandshakeFlag is a set of flags of the handshake."},
	{"STRICT_", "Strict", "uint32", "Strict is a set of things that the library refuses by itself."},
	{"ALLOW_TRANSPORT_", "AllowTransport", "uint32", "AllowTransport is a set of ways that a URI may connect."},
	{"SHUTDOWN_", "Shutdown", "uint32", "Shutdown is a set of flags that say how to end."},
}

// The files, by how the titles of the header's sections begin.
var files = []struct{ section, file string }{
	{"Handles and errors", "settings"},
	{"What this library is", "settings"},
	{"Debugging", "settings"},
	{"Counters", "settings"},
	{"What is negotiated", "negotiation"},
	{"TLS", "negotiation"},
	{"What a URI may", "negotiation"},
	{"Connecting", "connect"},
	{"Option mode", "options"},
	{"What was negotiated", "export"},
	{"Commands, waited", "commands"},
	{"Commands, not waited", "aio"},
	{"Progress", "progress"},
}

func fileOf(f function) (string, error) {
	for _, rule := range files {
		if strings.HasPrefix(f.section, rule.section) {
			return rule.file, nil
		}
	}
	return "", fmt.Errorf("nbd_%s: no file for the section '%s'", f.name, f.section)
}

// byHand are the methods whose parameters C and Go do not share.
var byHand = map[string]bool{"aio_connect": true}

// The functions that return an int, by what it is.
var (
	truths = regexp.MustCompile(`^(supports_\w+|is_\w+|can_\w+|aio_is_\w+|get_request_\w+|get_\w+_negotiated` +
		`|get_debug|get_full_info|get_pread_initialize|get_opt_mode|get_tls_verify_peer` +
		`|opt_starttls|opt_extended_headers|opt_structured_reply|aio_command_completed)$`)
	counts   = regexp.MustCompile(`^(poll|poll2|aio_in_flight|opt_list|opt_(list|set)_meta_context(_queries)?)$`)
	failures = regexp.MustCompile(`^(set_\w+|clear_\w+|add_\w+|connect_\w+|aio_connect\w*|aio_disconnect` +
		`|aio_notify_(read|write)|aio_opt_\w+|opt_(go|abort|info)|kill_subprocess|shutdown` +
		`|pread|pread_structured|pwrite|flush|trim|cache|zero|block_status(_64|_filter)?)$`)
)

// A result is what a method returns beside the error.
type result struct {
	gotype string // "" if there is nothing
	kind   resultKind
}

type resultKind int

const (
	number     resultKind = iota // -1 is failure
	infallible                   // cannot fail
	constText                    // the library's; NULL is failure
	ownText                      // ours to free; NULL is failure
)

func resultOf(f function) (result, error) {
	switch f.returns {
	case "int":
		return intOf(f)
	case "int64_t":
		return result{"uint64", number}, nil
	case "ssize_t":
		return result{"uint", number}, nil
	case "const char *":
		return result{"*string", constText}, nil
	case "char *":
		return result{"*string", ownText}, nil
	case "uint64_t":
		return result{"uint64", infallible}, nil
	case "unsigned", "uintptr_t":
		return result{"uint", infallible}, nil
	case "uint32_t":
		if gotype, known := flagsOf[f.name]; known {
			return result{gotype, infallible}, nil
		}
	}
	return result{}, fmt.Errorf("nbd_%s: what is the '%s' that it returns?", f.name, f.returns)
}

func intOf(f function) (result, error) {
	kinds := map[string]bool{
		"bool": truths.MatchString(f.name),
		"uint": counts.MatchString(f.name),
		"":     failures.MatchString(f.name),
		"int":  f.name == "aio_get_fd",
		"Tls":  f.name == "get_tls",
	}
	found, gotype := 0, ""
	for kind, fits := range kinds {
		if fits {
			found, gotype = found+1, kind
		}
	}
	if found != 1 {
		return result{}, fmt.Errorf("nbd_%s: what is the int that it returns?", f.name)
	}
	return result{gotype, number}, nil
}

// The types of uint32_t that are sets of flags, by function; CmdFlag where there is none here.
var flagsOf = map[string]string{
	"set_handshake_flags":      "HandshakeFlag",
	"get_handshake_flags":      "HandshakeFlag",
	"set_strict_mode":          "Strict",
	"get_strict_mode":          "Strict",
	"set_uri_allow_transports": "AllowTransport",
	"shutdown":                 "Shutdown",
}

// An argument is a parameter of a method.
type argument struct {
	param
	gotype   string
	optional bool
}

func argumentOf(f function, p param) (argument, error) {
	plain := func(gotype string) (argument, error) { return argument{p, gotype, false}, nil }
	switch p.ctype {
	case "void *", "const void *":
		if strings.HasPrefix(f.name, "aio_") {
			return plain("AioBuffer")
		}
		return plain("[]byte")
	case "const char *":
		return plain("string")
	case "char **":
		return plain("[]string")
	case "bool":
		return plain("bool")
	case "size_t", "uintptr_t":
		return plain("uint")
	case "uint64_t":
		return plain("uint64")
	case "int":
		switch p.name {
		case "tls":
			return plain("Tls")
		case "size_type":
			return plain("Size")
		}
		return plain("int")
	case "uint32_t":
		gotype := flagsOf[f.name]
		switch {
		case p.name == "flags" && !strings.HasPrefix(f.name, "set_"):
			if gotype == "" {
				gotype = "CmdFlag"
			}
			return argument{p, gotype, true}, nil
		case gotype != "":
			return plain(gotype)
		}
		return plain("uint32")
	}
	if isCallback(p) {
		gotype := camel(strings.TrimPrefix(p.ctype, "nbd_"))
		return argument{p, gotype, gotype == "CompletionCallback"}, nil
	}
	return argument{}, fmt.Errorf("nbd_%s: what is the '%s' that it takes?", f.name, p.ctype)
}

// camel writes a name as Go does: aio_block_status_64 is AioBlockStatus64.
func camel(name string) string {
	var text strings.Builder
	for _, word := range strings.Split(name, "_") {
		text.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return text.String()
}

// lowerCamel writes the name of a variable.
func lowerCamel(name string) string {
	text := camel(name)
	return strings.ToLower(text[:1]) + text[1:]
}
