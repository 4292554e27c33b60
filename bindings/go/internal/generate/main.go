// Command generate writes what of the binding follows from libnbd.h: the constants, the methods,
// and the functions of C that the methods call.
//
// It is run by "go generate" in the binding's folder, and reads the header of the repository. What
// it writes is committed; its test says so if that is out of date.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// Where the header lies, from the binding's folder.
const headerPath = "../../crates/capi/include/libnbd.h"

func main() {
	if err := run("."); err != nil {
		fmt.Fprintf(os.Stderr, "generate: %v\n", err)
		os.Exit(1)
	}
}

func run(folder string) error {
	made, err := generate(folder)
	if err != nil {
		return err
	}
	for name, text := range made {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// generate makes the files, by name.
func generate(folder string) (map[string][]byte, error) {
	text, err := os.ReadFile(filepath.Join(folder, headerPath))
	if err != nil {
		return nil, err
	}
	header, err := parseHeader(string(text))
	if err != nil {
		return nil, err
	}
	made := map[string][]byte{}
	if made["zconstants.go"], err = constantsFile(header); err != nil {
		return nil, err
	}
	return made, methodFiles(header, made)
}
