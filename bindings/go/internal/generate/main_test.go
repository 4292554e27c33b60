package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const folder = "../.."

func TestCommittedIsUpToDate(t *testing.T) {
	made, err := generate(folder)
	if err != nil {
		t.Fatal(err)
	}
	there, err := filepath.Glob(filepath.Join(folder, "z*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(there) != len(made) {
		t.Errorf("%d files are committed, %d are made: %v", len(there), len(made), there)
	}
	for name, text := range made {
		is, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(is, text) {
			t.Errorf("%s is out of date: run 'go generate' in bindings/go", name)
		}
	}
}

// Every function of the library's version script is a method, or one of the four that are not.
func TestEveryFunctionIsThere(t *testing.T) {
	script, err := os.ReadFile(filepath.Join(folder, "../../crates/capi/libnbd.map"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(folder, headerPath))
	if err != nil {
		t.Fatal(err)
	}
	header, err := parseHeader(string(text))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, f := range header.functions {
		found[f.name] = true
	}
	for name := range notMethods {
		found[name] = true
	}
	wanted := 0
	for _, line := range strings.Split(string(script), "\n") {
		name := strings.TrimSuffix(strings.TrimSpace(line), ";")
		if !strings.HasPrefix(name, "nbd_") {
			continue
		}
		wanted++
		if !found[strings.TrimPrefix(name, "nbd_")] {
			t.Errorf("%s was not found in libnbd.h", name)
		}
	}
	if wanted != 165 || len(found) != wanted {
		t.Errorf("%d functions in the library, %d found in libnbd.h", wanted, len(found))
	}
}

func TestUnknownThingsAreRefused(t *testing.T) {
	for _, text := range []string{
		"/* ---- Debugging */\nextern int nbd_mystery (struct nbd_handle *h);\n",
		"/* ---- Debugging */\nextern double nbd_set_x (struct nbd_handle *h);\n",
		"/* ---- Debugging */\nextern int nbd_set_x (struct nbd_handle *h, double x);\n",
		"/* ---- A new section */\nextern int nbd_set_x (struct nbd_handle *h);\n",
		"extern int nbd_set_x (int x);\n",
	} {
		header, err := parseHeader(text)
		if err == nil {
			err = methodFiles(header, map[string][]byte{})
		}
		if err == nil {
			t.Errorf("accepted: %s", text)
		}
	}
}
