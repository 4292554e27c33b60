//! Surviving memory that is taken away: a guard against SIGBUS. An island of `unsafe`.
//!
//! **What.** Guest memory is a file that somebody else has. If he makes it shorter while it is mapped
//! here, the next access behind its end raises SIGBUS, and a process without a guard ends, with all
//! its other guests. A [`Guard`] stands over one mapping: where the file has ended, the rest of the
//! mapping becomes private zeroes, the access goes on, and the guard says that the memory
//! [was cut](Guard::was_cut). Its user looks once a turn, and ends that one connection.
//!
//! **Why so.** A file with `F_SEAL_SHRINK` needs no guard, but a front-end need not seal its memory,
//! and a file that has a name cannot be sealed at all. The size was checked when the file was mapped;
//! only a signal tells what happens later. Accesses of the kernel on our behalf
//! (readv(2) into guest memory) need no guard: they fail with EFAULT.
//!
//! **Contract.** A SIGBUS elsewhere goes to whoever handled it before, and ends the process if that
//! was nobody. Threads that access guest memory must not have SIGBUS blocked: the kernel ends a
//! process whose thread has. The handler takes no lock and allocates nothing; it makes one system
//! call.
#![allow(unsafe_code)]

use std::{
    ptr::NonNull,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Mappings that can be guarded at once, in the whole process.
pub const MOST: usize = 8192;

/// One guarded mapping. Of no use while its length is 0.
struct Slot {
    taken: AtomicBool,
    base: AtomicUsize,
    len: AtomicUsize,
    cut: AtomicBool,
}

static SLOTS: [Slot; MOST] = [const {
    Slot {
        taken: AtomicBool::new(false),
        base: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        cut: AtomicBool::new(false),
    }
}; MOST];

/// Slots from here on were never used: the handler stops there.
static USED: AtomicUsize = AtomicUsize::new(0);

/// How often a mapping was cut.
static CUTS: AtomicUsize = AtomicUsize::new(0);

/// How often a guarded mapping was cut in this process: while the number stays, none was.
#[inline]
pub fn cuts() -> usize {
    CUTS.load(Ordering::Relaxed)
}

/// Who handled the signal before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Why a mapping cannot be guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// There are [`MOST`] guards.
    #[error("too many regions of guest memory are mapped in this process")]
    Full,
    /// The system takes no handler.
    #[error("SIGBUS cannot be handled")]
    Handler,
}

/// Stands over a mapping, until it is dropped.
#[derive(Debug)]
pub struct Guard(usize);

impl Guard {
    /// Guards `len` bytes from `base` on.
    ///
    /// # Errors
    /// As [`GuardError`] says.
    ///
    /// # Safety
    /// That is a whole shared mapping of a file, from its first page on, and it stays mapped until the
    /// guard is dropped. No Rust reference to its bytes exists: they may become zeroes at any moment.
    pub unsafe fn new(base: NonNull<u8>, len: usize) -> Result<Guard, GuardError> {
        install()?;
        let free = |slot: &Slot| !slot.taken.swap(true, Ordering::Acquire);
        let index = SLOTS.iter().position(free).ok_or(GuardError::Full)?;
        let slot = &SLOTS[index];
        slot.cut.store(false, Ordering::Relaxed);
        slot.base.store(base.as_ptr().addr(), Ordering::SeqCst);
        slot.len.store(len, Ordering::SeqCst);
        USED.fetch_max(index + 1, Ordering::SeqCst);
        Ok(Guard(index))
    }

    /// Whether the file has ended before the mapping has, and somebody found out.
    #[inline]
    pub fn was_cut(&self) -> bool {
        SLOTS[self.0].cut.load(Ordering::Relaxed)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let slot = &SLOTS[self.0];
        slot.len.store(0, Ordering::SeqCst);
        slot.base.store(0, Ordering::SeqCst);
        slot.taken.store(false, Ordering::Release);
    }
}

fn install() -> Result<(), GuardError> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        // SAFETY: all-zero is a valid sigaction; both are valid for the calls. Who handled it before
        // is known before our handler may run.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut action) != 0 {
                return false;
            }
            let _ = BEFORE.set(action);
            let handler: Handler = on_sigbus;
            action = std::mem::zeroed();
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) == 0
        }
    });
    if *installed {
        Ok(())
    } else {
        Err(GuardError::Handler)
    }
}

type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel gives what belongs to the signal (SA_SIGINFO).
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    if code == libc::BUS_ADRERR && mend(address) {
        return;
    }
    pass_on(signal, info, context);
}

/// Puts zeroes where the file has ended. False if no guard stands there.
fn mend(address: usize) -> bool {
    let used = USED.load(Ordering::SeqCst);
    for slot in &SLOTS[..used] {
        let base = slot.base.load(Ordering::SeqCst);
        let len = slot.len.load(Ordering::SeqCst);
        // The slot of the mapping that was hit does not change now, since its user is here; another
        // may: then base and length do not belong together, and the base is another the next time.
        if base != slot.base.load(Ordering::SeqCst) || address.wrapping_sub(base) >= len {
            continue;
        }
        slot.cut.store(true, Ordering::Relaxed);
        CUTS.fetch_add(1, Ordering::Release);
        let page = rustix::param::page_size();
        let from = address & !(page - 1);
        // A mapping of large pages cannot be parted at a small one.
        return zeroes(from, base + len - from) || zeroes(base, len);
    }
    false
}

fn zeroes(from: usize, len: usize) -> bool {
    let place = std::ptr::with_exposed_provenance_mut(from);
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: a part of a guarded mapping: nobody has references to it, and its bytes may become
    // zeroes.
    unsafe { mmap_anonymous(place, len, protection, flags) }.is_ok()
}

/// A signal that is not ours.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let before = BEFORE.get();
    let function = before.map_or(libc::SIG_DFL, |before| before.sa_sigaction);
    if function == libc::SIG_DFL || function == libc::SIG_IGN {
        // SAFETY: all-zero is the default action. The access is tried again, and ends the process.
        unsafe {
            let action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    } else if before.is_some_and(|before| before.sa_flags & libc::SA_SIGINFO != 0) {
        // SAFETY: registered as a handler of three arguments.
        let function: Handler = unsafe { std::mem::transmute(function) };
        function(signal, info, context);
    } else {
        // SAFETY: registered as a handler of one argument.
        let function: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(function) };
        function(signal);
    }
}

#[cfg(test)]
mod tests {
    use std::{os::fd::OwnedFd, os::unix::process::ExitStatusExt, process::Command};

    use rustix::{
        fs::{MemfdFlags, ftruncate, memfd_create},
        mm::{mmap, munmap},
    };

    use super::*;

    const PAGE: usize = 4096;

    struct Mapped(OwnedFd, NonNull<u8>, usize);

    impl Mapped {
        fn new(pages: usize) -> Mapped {
            let fd = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
            let len = pages * PAGE;
            ftruncate(&fd, len as u64).unwrap();
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            let null = std::ptr::null_mut();
            // SAFETY: a fresh mapping.
            let base = unsafe { mmap(null, len, protection, MapFlags::SHARED, &fd, 0) };
            let base = NonNull::new(base.unwrap().cast()).unwrap();
            Mapped(fd, base, len)
        }

        fn guard(&self) -> Guard {
            // SAFETY: the tests drop the guard first, and make no references.
            unsafe { Guard::new(self.1, self.2) }.unwrap()
        }

        fn read(&self, at: usize) -> u8 {
            // SAFETY: inside of the mapping.
            unsafe { self.1.as_ptr().add(at).read_volatile() }
        }

        fn write(&self, at: usize, byte: u8) {
            // SAFETY: inside of the mapping.
            unsafe { self.1.as_ptr().add(at).write_volatile(byte) }
        }
    }

    impl Drop for Mapped {
        fn drop(&mut self) {
            // SAFETY: mapped by us.
            unsafe { munmap(self.1.as_ptr().cast(), self.2) }.unwrap();
        }
    }

    #[test]
    fn memory_that_is_cut_off_reads_as_zeroes() {
        let (mapped, other) = (Mapped::new(4), Mapped::new(1));
        let (guard, unharmed) = (mapped.guard(), other.guard());
        (0..4).for_each(|page| mapped.write(page * PAGE, 7));
        other.write(0, 9);
        ftruncate(&mapped.0, PAGE as u64).unwrap();
        assert!(!guard.was_cut(), "nobody has looked");
        assert_eq!((mapped.read(0), guard.was_cut()), (7, false));
        assert_eq!((mapped.read(2 * PAGE), guard.was_cut()), (0, true));
        mapped.write(3 * PAGE + 5, 1);
        assert_eq!((mapped.read(3 * PAGE + 5), mapped.read(PAGE)), (1, 0));
        assert_eq!(mapped.read(0), 7, "what is left of the file stays");
        assert_eq!((other.read(0), unharmed.was_cut()), (9, false));
    }

    #[test]
    fn every_thread_is_guarded_at_the_same_time() {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                std::thread::spawn(|| {
                    for _ in 0..50 {
                        let mapped = Mapped::new(8);
                        let guard = mapped.guard();
                        ftruncate(&mapped.0, 0).unwrap();
                        (0..8).for_each(|page| mapped.write(page * PAGE, 1));
                        assert!(guard.was_cut());
                        let fresh = Mapped::new(1);
                        assert!(!fresh.guard().was_cut());
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn a_signal_elsewhere_still_ends_the_process() {
        const NAME: &str = "sigbus::tests::a_signal_elsewhere_still_ends_the_process";
        const CHILD: &str = "BLKIT_TEST_SIGBUS_CHILD";
        if std::env::var_os(CHILD).is_some() {
            let (guarded, bare) = (Mapped::new(1), Mapped::new(1));
            let _guard = guarded.guard();
            ftruncate(&guarded.0, 0).unwrap();
            assert_eq!(guarded.read(0), 0);
            ftruncate(&bare.0, 0).unwrap();
            bare.read(0);
            std::process::exit(0);
        }
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", NAME, "--nocapture"]).env(CHILD, "1");
        let status = child.output().unwrap().status;
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
    }
}
