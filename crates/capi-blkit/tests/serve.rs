//! A program in C that serves a disk, and whoever connects to it.
//!
//! Peers that are not installed make a test print `SKIP: reason` and pass.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use blkit::Disk;

/// The folder with the library, as `cargo xtask capi` makes it. `BLKIT_CAPI` may name one that has it.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| match std::env::var_os("BLKIT_CAPI") {
        Some(folder) => folder.into(),
        None => {
            let mut command = Command::new(env!("CARGO"));
            command.args(["run", "-q", "-p", "xtask", "--", "capi", "libblkit"]);
            if !cfg!(debug_assertions) {
                command.arg("--release");
            }
            let said = command.current_dir(root()).output().expect("runs");
            assert!(said.status.success(), "{said:?}");
            let text = String::from_utf8(said.stdout).expect("UTF-8");
            text.lines().last().expect("the folder").into()
        }
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compiles a program; `None`, with a note, without a compiler.
fn compile(source: &Path, to: &Path) -> Option<()> {
    let mut command = Command::new("cc");
    command.args(["-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror", "-o"]);
    command.arg(to).arg("-I").arg(library().join("include"));
    command.arg(source).arg("-L").arg(library());
    command.args(["-lblkit", "-lpthread"]);
    command.arg(format!("-Wl,-rpath,{}", library().display()));
    match command.output() {
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            Some(())
        }
        Err(_) => {
            println!("SKIP: cc is not installed");
            None
        }
    }
}

fn start(program: &Path, socket: &Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(program)
        .arg(socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut said = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    said.read_line(&mut line).expect("it says something");
    assert_eq!(line, "serving\n");
    (child, said)
}

#[test]
fn a_program_serves_its_disk() {
    let folder = tempfile::tempdir().expect("a directory");
    let (program, socket) = (folder.path().join("serve"), folder.path().join("sock"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/serve.c");
    if compile(&source, &program).is_none() {
        return;
    }
    let (mut child, mut said) = start(&program, &socket);
    // GET_FEATURES (vhost-user), and its answer: VIRTIO_F_VERSION_1 is among them.
    let mut stream = UnixStream::connect(&socket).expect("connects");
    let header: Vec<u8> = [1u32, 1, 0].iter().flat_map(|n| n.to_ne_bytes()).collect();
    stream.write_all(&header).expect("asks");
    let mut answer = [0; 20];
    stream.read_exact(&mut answer).expect("is answered");
    let features = u64::from_ne_bytes(answer[12..].try_into().expect("8 bytes"));
    assert_ne!(features & 1 << 32, 0);
    drop(stream);
    if blkit::blkio::DRIVERS.contains(&"virtio-blk-vhost-user") {
        let disk = Disk::builder("blkio").arg("virtio-blk-vhost-user");
        let disk = disk.param("path", socket.display()).open().expect("opens");
        assert_eq!(disk.size(), 1 << 20);
        disk.write_at(b"from another program", 70_000)
            .expect("writes");
        let mut bytes = [0; 20];
        disk.read_at(&mut bytes, 70_000).expect("reads");
        assert_eq!(&bytes, b"from another program");
        disk.flush().expect("flushes");
        disk.read_at(&mut bytes, (1 << 20) - 20)
            .expect_err("a bad block");
        disk.read_at(&mut bytes, 70_000).expect("it goes on");
        disk.close().expect("closes");
    } else {
        println!("SKIP: there is no driver to read and write with yet");
    }
    drop(child.stdin.take());
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("the rest");
    let lines: Vec<&str> = rest.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].ends_with(" attached"),
        "{rest}"
    );
    assert_eq!(lines[1], "freed");
    assert!(child.wait().expect("ends").success());
    assert!(!socket.exists());
}

const WRONG: &str = r#"
#include <stdio.h>
#include <blkit.h>
static int yes (void *o, void *b, size_t c, uint64_t at) { (void) o; (void) b; (void) c; (void) at; return 0; }
static void gone (void *o) { printf ("gone %s\n", (const char *) o); }
static void show (int result) { printf ("%d %s\n", result, blkit_get_error_msg ()); }
int main (int argc, char *argv[])
{
  struct blkit_device d = { .struct_size = 1, .size = 1 << 20, .opaque = "1", .free = gone };
  struct blkit_serve_options o = { .struct_size = sizeof o, .sharing = 9 };
  struct blkit_server *s;
  (void) argc;
  show (blkit_serve_vhost_user (argv[1], NULL, NULL, &s));
  show (blkit_serve_vhost_user (argv[1], &d, NULL, &s));
  d.struct_size = sizeof d;
  show (blkit_serve_vhost_user (argv[1], &d, NULL, &s));
  d.pread = yes;
  show (blkit_serve_vhost_user (NULL, &d, NULL, &s));
  show (blkit_serve_vhost_user (argv[1], &d, &o, &s));
  d.block_size = 700;
  show (blkit_serve_vhost_user (argv[1], &d, NULL, &s));
  show (blkit_server_connections (NULL));
  show (blkit_server_resize (NULL, 1));
  printf ("%d\n", blkit_server_close (NULL, 0));
  return 0;
}
"#;

#[test]
fn what_is_wrong_is_told() {
    let folder = tempfile::tempdir().expect("a directory");
    let (source, program) = (folder.path().join("wrong.c"), folder.path().join("wrong"));
    fs::write(&source, WRONG).expect("writes");
    if compile(&source, &program).is_none() {
        return;
    }
    let said = Command::new(program)
        .arg(folder.path().join("sock"))
        .output()
        .expect("runs");
    let text = String::from_utf8(said.stdout).expect("UTF-8");
    let expected = "-22 device must be non-NULL\n\
         -22 struct_size is not that of struct blkit_device\n\
         gone 1\n\
         -22 pread must be non-NULL\n\
         gone 1\n\
         -22 path and server must be non-NULL\n\
         gone 1\n\
         -22 sharing is none of BLKIT_SHARING_...\n\
         gone 1\n\
         -22 a block of 700 bytes: it must be a power of two, at most 1 MiB\n\
         -22 server must be non-NULL\n\
         -22 server must be non-NULL\n\
         0\n";
    assert_eq!(text, expected);
}
