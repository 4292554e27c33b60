package libnbd

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// original builds the program of testdata/original, which is written for libnbd's own binding.
func original(t *testing.T, words []string, environ ...string) string {
	needs(t, "go")
	program := filepath.Join(t.TempDir(), "original")
	command := exec.Command("go", append(append([]string{"build"}, words...), "-o", program, ".")...)
	command.Dir = "testdata/original"
	command.Env = append(append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off"), environ...)
	if said, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	return program
}

// The program of docs/go.md, with the lines for its go.mod that stand there.
func TestDocumentedProgram(t *testing.T) {
	needs(t, "go")
	page, err := os.ReadFile("../../docs/go.md")
	must(t, err)
	socket := nbdkit(t, "pattern", "1M")
	here, err := os.Getwd()
	must(t, err)
	place := t.TempDir()
	for name, begin := range map[string]string{"go.mod": "```\nrequire ", "main.go": "```go\npackage main"} {
		_, text, found := strings.Cut(string(page), begin)
		text, _, closed := strings.Cut(text, "\n```\n")
		if !found || !closed {
			t.Fatalf("docs/go.md has no %s", name)
		}
		_, start, _ := strings.Cut(begin, "\n")
		if name == "go.mod" {
			start = "module example.com/documented\n\ngo 1.19\n\n" + start
		}
		text = strings.ReplaceAll(text, "/path/to/blkit/bindings/go", here)
		text = strings.ReplaceAll(text, "nbd://localhost", "nbd+unix:///?socket="+socket)
		must(t, os.WriteFile(filepath.Join(place, name), []byte(start+text+"\n"), 0o666))
	}
	command := exec.Command("go", "run", ".")
	command.Dir = place
	command.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off")
	said, err := command.CombinedOutput()
	if err != nil || string(said) != fmt.Sprintf("%x\n", pattern(0, 512)) {
		t.Errorf("%v: %s", err, said)
	}
}

// tells runs it: a disk with data in one place.
func tells(t *testing.T, program string) {
	h := handle(t)
	socket := nbdkit(t, "memory", "1M")
	must(t, h.ConnectUnix(socket))
	data := bytes.Repeat([]byte("data"), 8192)
	must(t, h.Pwrite(data, 32768, nil))
	said, err := exec.Command(program, "nbd+unix:///?socket="+socket).CombinedOutput()
	wanted := fmt.Sprintf("true\n32768 32768 %x\n%x\npread 22\n", sha256.Sum256(data),
		sha256.Sum256(append(make([]byte, 32768), data...)))
	if err != nil || string(said) != wanted {
		t.Errorf("%v: %s\nwanted: %s", err, said, wanted)
	}
}

func TestOriginalProgram(t *testing.T) {
	tells(t, original(t, nil))
}

// The same with the library in the program, as docs/go.md has it. LIBNBD_STATIC has what to link.
func TestOriginalProgramStatic(t *testing.T) {
	flags := os.Getenv("LIBNBD_STATIC")
	if flags == "" {
		t.Skip("LIBNBD_STATIC does not say what to link")
	}
	header, err := exec.Command("pkg-config", "--cflags", "libnbd").Output()
	must(t, err)
	program := original(t, []string{"-tags", "libnbd_no_pkgconfig"},
		"CGO_CFLAGS="+string(bytes.TrimSpace(header)), "CGO_LDFLAGS="+flags)
	libraries, err := exec.Command("ldd", program).CombinedOutput()
	must(t, err)
	if bytes.Contains(libraries, []byte("libnbd")) {
		t.Errorf("it needs the library: %s", libraries)
	}
	tells(t, program)
}
