package libnbd

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
