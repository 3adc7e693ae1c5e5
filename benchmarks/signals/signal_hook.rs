// signal-hook's iterator, each on a thread of its own, the first on the main one, or
// `elsewhere`, too, while the main thread sleeps.
//
// See answer_sheet.h and assignment.h.

use std::ffi::CString;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use signal_hook::iterator::Signals;

fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[derive(Clone, Copy)]
struct Sheet(usize);

impl Sheet {
    fn map(path: &str) -> Sheet {
        let path = CString::new(path).unwrap();
        unsafe {
            let fd = libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
            let memory = libc::mmap(
                std::ptr::null_mut(),
                128 * 65,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd,
                0,
            );
            assert!(memory != libc::MAP_FAILED, "the answer sheet cannot be mapped");
            libc::close(fd);
            Sheet(memory as usize)
        }
    }

    fn number(&self, offset: usize) -> &AtomicU64 {
        unsafe { &*((self.0 + offset) as *const AtomicU64) }
    }

    fn report_open(&self) {
        unsafe { &*(self.0 as *const AtomicU32) }.store(1, Ordering::SeqCst);
    }

    fn answer(&self, receiver: usize, second: bool) {
        let at = 128 * (1 + receiver) + if second { 16 } else { 0 };
        self.number(at).store(now(), Ordering::Relaxed);
        let count = self.number(at + 8);
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Release);
    }
}

fn receive(sheet: Sheet, receiver: usize, first: i32, mut signals: Signals) {
    for signum in signals.forever() {
        sheet.answer(receiver, signum != first);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let sheet = Sheet::map(&arguments[2]);
    let count: usize = arguments[4].parse().unwrap();
    let wanted: Vec<i32> = arguments[5..].iter().map(|s| s.parse().unwrap()).collect();
    if arguments[3] == "open_close" {
        drop(Signals::new(&wanted).unwrap());
        let start = now();
        for _ in 0..count {
            drop(Signals::new(&wanted).unwrap());
        }
        sheet.number(8).store(now() - start, Ordering::SeqCst);
        sheet.report_open();
        return;
    }
    let first = wanted[0];
    let mut all: Vec<Signals> = (0..count).map(|_| Signals::new(&wanted).unwrap()).collect();
    for receiver in (1..count).rev() {
        let signals = all.pop().unwrap();
        thread::spawn(move || receive(sheet, receiver, first, signals));
    }
    let signals = all.pop().unwrap();
    sheet.report_open();
    if arguments[1] == "elsewhere" {
        thread::spawn(move || receive(sheet, 0, first, signals)).join().unwrap();
    } else {
        receive(sheet, 0, first, signals);
    }
}
