//! A Linux guest on our vhost-user-blk export, and what the host does for it.
//!
//! Two servers: `/dev/vda` is a file on the host, with two queues and a front-end that connects anew;
//! `/dev/vdb` is a RAM disk behind packed rings.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    disk::{Disk, KernelDisk, number},
    host::{Lab, Services},
    inside::{ask_host, output, wait_for},
    load::Model,
};

const SIZE: u64 = 64 << 20;
const GROWN: u64 = 96 << 20;

/// Where the parts of the first disk are: a file system, and what loads write to.
const LOADED: u64 = 32 << 20;

/// Verified loads on both disks at the same time.
pub fn load() -> Result<()> {
    ensure!(
        fs::read_dir("/sys/block/vda/mq")?.count() == 2,
        "not two queues"
    );
    let features = fs::read_to_string("/sys/block/vdb/device/features")?;
    ensure!(
        features.as_bytes().get(34) == Some(&b'1'),
        "no packed ring: {features}"
    );
    let second = thread::spawn(|| loaded("vdb", 0, 2, 500));
    let first = loaded("vda", LOADED, 1, 500);
    let second = second.join();
    first.context("vda")?;
    second
        .map_err(|_| anyhow::anyhow!("it panicked"))?
        .context("vdb")
}

fn loaded(name: &str, start: u64, seed: u64, turns: u32) -> Result<()> {
    let mut disk = KernelDisk::open(name)?;
    let mut model = Model::new(start, 16 << 20, seed);
    // What an earlier case left there.
    output(&[
        "blkdiscard",
        "-z",
        "-o",
        &start.to_string(),
        "-l",
        "16777216",
        &format!("/dev/{name}"),
    ])?;
    model.run(&mut disk, turns, 512 << 10)?;
    model.check_all(&mut disk)
}

/// Discarded and zeroed ranges read as zeroes, and their neighbours do not.
pub fn discard() -> Result<()> {
    let limit = number("/sys/block/vda/queue/discard_max_bytes".as_ref())?;
    ensure!(limit > 0, "no discard");
    let mut disk = KernelDisk::open("vda")?;
    let mut model = Model::new(LOADED, 16 << 20, 3);
    output(&[
        "blkdiscard",
        "-z",
        "-o",
        "33554432",
        "-l",
        "16777216",
        "/dev/vda",
    ])?;
    model.run(&mut disk, 200, 512 << 10)?;
    for (how, at) in [("-f", 36u64 << 20), ("-z", 40 << 20)] {
        let (offset, len) = (at.to_string(), 2u64 << 20);
        output(&[
            "blkdiscard",
            how,
            "-o",
            &offset,
            "-l",
            &len.to_string(),
            "/dev/vda",
        ])?;
        model.zeroed(at, len);
    }
    model.check_all(&mut disk)
}

/// A file system of the guest's kernel. The host checks it afterwards.
pub fn file_system() -> Result<()> {
    // Below where loads write.
    output(&["mke2fs", "/dev/vda", "31000"])?;
    output(&["mount", "-t", "ext2", "/dev/vda", "/mnt"])?;
    let text = "what the guest wrote\n".repeat(20_000);
    for name in 0..20 {
        fs::write(format!("/mnt/{name}"), &text)?;
    }
    fs::remove_file("/mnt/7")?;
    output(&["umount", "/mnt"])?;
    output(&["mount", "-t", "ext2", "/dev/vda", "/mnt"])?;
    for name in (0..20).filter(|name| *name != 7) {
        ensure!(
            fs::read_to_string(format!("/mnt/{name}"))? == text,
            "file {name} differs"
        );
    }
    output(&["umount", "/mnt"]).map(drop)
}

/// The file grows on the host, and the guest's disk with it, while it is in use.
pub fn resize() -> Result<()> {
    let mut disk = KernelDisk::open("vda")?;
    ensure!(disk.size()? == SIZE, "{} bytes", disk.size()?);
    ask_host("resize")?;
    wait_for("the disk to grow", || {
        disk.size().is_ok_and(|size| size == GROWN)
    })?;
    let mut model = Model::new(SIZE, GROWN - SIZE, 5);
    model.run(&mut disk, 100, 256 << 10)?;
    model.check_all(&mut disk)
}

/// The server is killed under load, again and again: each request ends well, once.
pub fn killed() -> Result<()> {
    let load = thread::spawn(|| loaded("vda", LOADED, 7, 1500));
    let mut kills = 0;
    while !load.is_finished() && kills < 5 {
        thread::sleep(Duration::from_millis(300));
        ask_host("kill")?;
        kills += 1;
    }
    ensure!(kills > 1, "the load was over too soon");
    load.join().map_err(|_| anyhow::anyhow!("it panicked"))?
}

/// The servers.
pub struct Servers {
    blkit: PathBuf,
    file: PathBuf,
    sockets: [PathBuf; 2],
    running: Vec<Child>,
}

/// Starts them.
pub fn servers(lab: &Lab) -> Result<Box<dyn Services>> {
    let file = lab.folder.join("disk");
    File::create(&file)?.set_len(SIZE)?;
    let mut servers = Servers {
        blkit: lab.blkit.clone(),
        sockets: ["0.sock", "1.sock"].map(|name| lab.folder.join(name)),
        file,
        running: Vec::new(),
    };
    for number in 0..2 {
        let server = servers.start(number)?;
        servers.running.push(server);
    }
    Ok(Box::new(servers))
}

impl Servers {
    fn start(&self, number: usize) -> Result<Child> {
        let socket = &self.sockets[number];
        let _ = fs::remove_file(socket);
        let mut command = Command::new(&self.blkit);
        command.arg("serve");
        match number {
            0 => command.arg("file").arg(&self.file),
            _ => command.args(["memory", "32M"]),
        };
        command.arg("--vhost-user").arg(socket);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let server = command.spawn().context("blkit serve")?;
        wait_for("the server's socket", || socket.exists())?;
        Ok(server)
    }
}

impl Services for Servers {
    fn options(&self) -> Vec<String> {
        let [first, second] = &self.sockets;
        let options = [
            "--vhost-user".to_owned(),
            format!("{},queues=2,reconnect", first.display()),
            "--vhost-user".to_owned(),
            format!("{},queues=2,packed", second.display()),
        ];
        options.to_vec()
    }

    fn wish(&mut self, words: &[&str]) -> Result<()> {
        match words {
            ["resize"] => Ok(File::options()
                .write(true)
                .open(&self.file)?
                .set_len(GROWN)?),
            ["kill"] => {
                self.running[0].kill()?;
                self.running[0].wait()?;
                self.running[0] = self.start(0)?;
                Ok(())
            }
            _ => bail!("an unknown wish"),
        }
    }

    fn after(&mut self) -> Result<()> {
        // What the guest's last case left: a file system, with nothing wrong.
        output(&["e2fsck", "-fn", &self.file.to_string_lossy()]).map(drop)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &mut self.running {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
