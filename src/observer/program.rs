//! The eBPF programs of an observer, in the kernel's instruction set (RFC 9669).

use crate::sys::bpf::Instruction;
use crate::sys::map_memory::Control;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The header of a record, before the bytes of the datagram.
pub(super) const HEADER: usize = 48;
/// The offsets of the fields of that header.
pub(super) const TIME: usize = 0;
pub(super) const SIZE: usize = 8;
pub(super) const COPIED: usize = 12;
pub(super) const PID: usize = 16;
pub(super) const USER: usize = 24;
pub(super) const COMM: usize = 32;
pub(super) const COMM_LEN: usize = 16;

/// The sizes of records. A datagram gets the smallest record that it fits into: the verifier accepts constant
/// sizes only. The kernel carries datagrams of up to 4 MiB and 45 pages, which is less than 4.5 MiB if pages have
/// 4 KiB.
const RECORDS: [usize; 18] = [
    128,
    256,
    512,
    1 << 10,
    2 << 10,
    4 << 10,
    8 << 10,
    16 << 10,
    32 << 10,
    64 << 10,
    128 << 10,
    256 << 10,
    512 << 10,
    1 << 20,
    2 << 20,
    4 << 20,
    (4 << 20) + (512 << 10),
    8 << 20,
];

/// Datagrams longer than this always wake the observer: they could fill the ring within an interval.
const LARGE: i32 = 32 << 10;

/// The helpers that a kernel permits in socket filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Helpers {
    pub(super) clock: Clock,
    /// True if it permits those that return the sending task.
    pub(super) task: bool,
}

impl Helpers {
    /// The sets of helpers that kernels permit, the largest first. The task needs CAP_PERFMON, `Clock::Tai` Linux
    /// 6.1.
    pub(super) const KNOWN: [Self; 3] = [
        Self {
            clock: Clock::Tai,
            task: true,
        },
        Self {
            clock: Clock::Tai,
            task: false,
        },
        Self {
            clock: Clock::Monotonic,
            task: false,
        },
    ];
}

/// The clock of the times in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// `CLOCK_TAI`, which is a whole number of seconds ahead of UTC.
    Tai,
    /// `CLOCK_MONOTONIC`.
    Monotonic,
}

// Registers.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
/// The context, a `struct __sk_buff`.
const CONTEXT: u8 = 6;
/// The number of bytes of the datagram that are copied.
const LEN: u8 = 7;
/// The record.
const RECORD: u8 = 8;

// Helpers; linux/bpf.h.
const KTIME_GET_NS: i32 = 5;
const TAIL_CALL: i32 = 12;
const GET_CURRENT_PID_TGID: i32 = 14;
const GET_CURRENT_UID_GID: i32 = 15;
const GET_CURRENT_COMM: i32 = 16;
const SKB_LOAD_BYTES: i32 = 26;
const RINGBUF_RESERVE: i32 = 131;
const RINGBUF_SUBMIT: i32 = 132;
const KTIME_GET_TAI_NS: i32 = 208;

const NO_WAKEUP: i32 = 1;
const FORCE_WAKEUP: i32 = 2;

// Conditions of jumps.
const EQUAL: u8 = 0x10;
const NOT_EQUAL: u8 = 0x50;
const AT_MOST: u8 = 0xb0;

/// A program that is being assembled.
#[derive(Default)]
struct Assembly(Vec<Instruction>);

/// A jump whose target is not known yet.
struct Jump(usize);

impl Assembly {
    fn emit(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        self.0
            .push(Instruction::new(code, to, from, offset, immediate));
    }

    fn set(&mut self, register: u8, value: i32) {
        self.emit(0xb7, register, 0, 0, value);
    }

    fn copy(&mut self, to: u8, from: u8) {
        self.emit(0xbf, to, from, 0, 0);
    }

    fn add(&mut self, register: u8, value: i32) {
        self.emit(0x07, register, 0, 0, value);
    }

    /// Loads 32 bits from memory.
    fn load(&mut self, to: u8, base: u8, offset: i16) {
        self.emit(0x61, to, base, offset, 0);
    }

    /// Stores 32 bits of a register to memory.
    fn store(&mut self, base: u8, offset: usize, from: u8) {
        self.emit(0x63, base, from, offset.try_into().unwrap_or(i16::MAX), 0);
    }

    /// Stores 64 bits of a register to memory.
    fn store_long(&mut self, base: u8, offset: usize, from: u8) {
        self.emit(0x7b, base, from, offset.try_into().unwrap_or(i16::MAX), 0);
    }

    /// Adds 64 bits of a register to memory, atomically.
    fn add_to_memory(&mut self, base: u8, offset: i16, from: u8) {
        self.emit(0xdb, base, from, offset, 0);
    }

    /// Loads the reference to a map, for a helper.
    fn map(&mut self, register: u8, map: BorrowedFd<'_>) {
        self.emit(0x18, register, 1, 0, map.as_raw_fd());
        self.emit(0, 0, 0, 0, 0);
    }

    /// Loads the address of the value of a map that has one.
    fn value(&mut self, register: u8, map: BorrowedFd<'_>) {
        self.emit(0x18, register, 2, 0, map.as_raw_fd());
        self.emit(0, 0, 0, 0, 0);
    }

    fn call(&mut self, helper: i32) {
        self.emit(0x85, 0, 0, 0, helper);
    }

    fn jump(&mut self, condition: u8, register: u8, value: i32) -> Jump {
        self.emit(0x05 | condition, register, 0, 0, value);
        Jump(self.0.len() - 1)
    }

    /// Sets the target of `jump` to the next instruction.
    fn land(&mut self, jump: &Jump) {
        let distance = self.0.len() - jump.0 - 1;
        self.0[jump.0].offset = distance.try_into().unwrap_or(i16::MAX);
    }

    /// Returns from the program and passes the whole datagram. The return value is the length to keep, and 0 drops
    /// the datagram: returning its own length would drop an empty one.
    fn pass(&mut self) {
        self.set(R0, -1);
        self.emit(0x95, 0, 0, 0, 0);
    }
}

/// Returns the program that is attached. It runs the program in `slot`, if there is one, and passes the
/// datagram.
///
/// The kernel empties `slot` when its last descriptor is closed, even if the observer is killed. The attached
/// program then does nothing, and the recorder and its maps are freed.
pub(super) fn filter(slot: BorrowedFd<'_>) -> Vec<Instruction> {
    let mut code = Assembly::default();
    code.map(R2, slot);
    code.set(R3, 0);
    code.call(TAIL_CALL);
    code.pass();
    code.0
}

/// Returns the program that copies each datagram to `ring` and passes it.
pub(super) fn recorder(
    ring: BorrowedFd<'_>,
    control: BorrowedFd<'_>,
    helpers: Helpers,
) -> Vec<Instruction> {
    let mut code = Assembly::default();
    code.copy(CONTEXT, R1);
    code.load(LEN, CONTEXT, 0);
    reserve(&mut code, ring);
    let reserved = code.jump(NOT_EQUAL, R0, 0);
    code.value(R1, control);
    code.set(R2, 1);
    code.add_to_memory(R1, Control::LOST, R2);
    code.pass();
    code.land(&reserved);
    code.copy(RECORD, R0);
    code.call(match helpers.clock {
        Clock::Tai => KTIME_GET_TAI_NS,
        Clock::Monotonic => KTIME_GET_NS,
    });
    code.store_long(RECORD, TIME, R0);
    code.load(R1, CONTEXT, 0);
    code.store(RECORD, SIZE, R1);
    copy_bytes(&mut code);
    if helpers.task {
        code.call(GET_CURRENT_PID_TGID);
        code.store_long(RECORD, PID, R0);
        code.call(GET_CURRENT_UID_GID);
        code.store_long(RECORD, USER, R0);
        code.copy(R1, RECORD);
        code.add(R1, immediate(COMM));
        code.set(R2, immediate(COMM_LEN));
        code.call(GET_CURRENT_COMM);
    }
    submit(&mut code, control);
    code.pass();
    code.0
}

/// Reserves a record for `LEN` bytes, and reduces `LEN` to what fits into the largest record. `R0` is the
/// address of the record, or 0.
fn reserve(code: &mut Assembly, ring: BorrowedFd<'_>) {
    let chosen: Vec<Jump> = RECORDS
        .iter()
        .map(|size| {
            code.set(R2, immediate(*size));
            code.jump(AT_MOST, LEN, immediate(size - HEADER))
        })
        .collect();
    let [.., largest] = RECORDS;
    code.set(LEN, immediate(largest - HEADER));
    for jump in &chosen {
        code.land(jump);
    }
    code.map(R1, ring);
    code.set(R3, 0);
    code.call(RINGBUF_RESERVE);
}

/// Copies `LEN` bytes into the record, and stores their number.
fn copy_bytes(code: &mut Assembly) {
    let empty = code.jump(EQUAL, LEN, 0);
    code.copy(R1, CONTEXT);
    code.set(R2, 0);
    code.copy(R3, RECORD);
    code.add(R3, immediate(HEADER));
    code.copy(R4, LEN);
    code.call(SKB_LOAD_BYTES);
    let copied = code.jump(EQUAL, R0, 0);
    code.set(LEN, 0);
    code.land(&empty);
    code.land(&copied);
    code.store(RECORD, COPIED, LEN);
}

/// Submits the record. Wakes the observer if it asks for that or the datagram is large.
fn submit(code: &mut Assembly, control: BorrowedFd<'_>) {
    code.set(R2, NO_WAKEUP);
    code.value(R1, control);
    code.load(R1, R1, Control::ASLEEP);
    let asleep = code.jump(NOT_EQUAL, R1, 0);
    let small = code.jump(AT_MOST, LEN, LARGE);
    code.land(&asleep);
    code.set(R2, FORCE_WAKEUP);
    code.land(&small);
    code.copy(R1, RECORD);
    code.call(RINGBUF_SUBMIT);
}

/// The sizes are constants below 2³¹.
fn immediate(size: usize) -> i32 {
    size.try_into().unwrap_or(i32::MAX)
}
