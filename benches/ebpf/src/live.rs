//! Frames on real interfaces: who sends them, who gets them, and tc's way of sending them on.

#![expect(
    unreachable_pub,
    reason = "the xdp macro makes a second function, which is public"
)]

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{TC_ACT_SHOT, xdp_action},
    btf_maps::{Array, DevMap},
    helpers::generated::{bpf_ktime_get_ns, bpf_redirect, bpf_xdp_load_bytes},
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};

use crate::programs::{put_next, start};

/// Intervals between packets.
const INTERVALS_LESS_1: u32 = 4095;

/// Where frames start their way.
#[btf_map]
static WIRE: DevMap<1> = DevMap::new();
/// Frames that have come.
#[btf_map]
static ARRIVED: Array<u32, 1> = Array::new();
/// When the next packet is due, in nanoseconds of the clock, and which interval follows.
#[btf_map]
static PACE: Array<[u64; 2], 1> = Array::new();
/// Nanoseconds from one packet to the next.
#[btf_map]
static INTERVALS: Array<u32, 4096> = Array::new();
/// Nanoseconds that packets took, in the order in which they came.
#[btf_map]
static DELAYS: Array<u32, 65_536> = Array::new();
/// The interface that tc sends to.
#[btf_map]
static DEVICE: Array<u32, 1> = Array::new();

/// Sends the next frame of 64 octets.
#[xdp]
pub fn send(ctx: XdpContext) -> u32 {
    emit::<8>(&ctx)
}

/// The same with frames of 128 octets.
#[xdp]
pub fn send_long(ctx: XdpContext) -> u32 {
    emit::<16>(&ctx)
}

/// Sends the next frame of 64 octets if it is due, with the time at which it was in its last octets.
#[xdp]
pub fn pace(ctx: XdpContext) -> u32 {
    emit_paced::<8>(&ctx)
}

/// The same with frames of 128 octets.
#[xdp]
pub fn pace_long(ctx: XdpContext) -> u32 {
    emit_paced::<16>(&ctx)
}

/// Takes frames in and counts them. If they were paced, notes how long they took.
#[xdp]
pub fn sink(ctx: XdpContext) -> u32 {
    let number = arrive(&ctx);
    let paced = PACE.get(0).is_some_and(|[due, _]| *due != 0);
    if let Some(number) = number.filter(|_| paced) {
        note_delay(&ctx, number);
    }
    xdp_action::XDP_DROP
}

#[inline(always)]
fn note_delay(ctx: &XdpContext, number: u32) {
    let mut due = 0u64;
    let stamp = (ctx.data_end() - ctx.data()).saturating_sub(8) as u32;
    let to = (&raw mut due).cast::<c_void>();
    // SAFETY: the pointer and the length are of one word.
    let loaded = unsafe { bpf_xdp_load_bytes(ctx.as_ptr().cast(), stamp, to, 8) };
    if loaded == 0
        && let Some(delay) = DELAYS.get_ptr_mut(number)
    {
        // SAFETY: one CPU runs this program, and values of an array are memory until it ends.
        unsafe { *delay = (now() - due) as u32 };
    }
}

/// Sends the packet on from traffic control.
#[classifier]
pub fn forward(_: TcContext) -> i32 {
    match DEVICE.get(0) {
        // SAFETY: it takes no pointers.
        Some(device) => unsafe { bpf_redirect(*device, 0) as i32 },
        None => TC_ACT_SHOT,
    }
}

#[inline(always)]
fn emit<const WORDS: usize>(ctx: &XdpContext) -> u32 {
    if put_next::<WORDS>(ctx).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    to_wire()
}

#[inline(always)]
fn emit_paced<const WORDS: usize>(ctx: &XdpContext) -> u32 {
    let (Some(pace), now) = (PACE.get_ptr_mut(0), now()) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: as in `arrive`.
    let [due, number] = unsafe { &mut *pace };
    // It begins with the first.
    if *due == 0 {
        *due = now;
    }
    if now < *due {
        return xdp_action::XDP_DROP;
    }
    let Some(frame) = put_next::<WORDS>(ctx) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: there is room for so many words.
    let stamp = unsafe { frame.add(WORDS - 1) };
    // SAFETY: as above.
    unsafe { stamp.write_volatile(*due) };
    let Some(interval) = INTERVALS.get(*number as u32 & INTERVALS_LESS_1) else {
        return xdp_action::XDP_ABORTED;
    };
    *number += 1;
    *due += u64::from(*interval);
    to_wire()
}

fn to_wire() -> u32 {
    match WIRE.redirect(0, xdp_action::XDP_ABORTED.into()) {
        Ok(action) | Err(action) => action,
    }
}

/// Which of the frames it is, if it is one of them: they are IP and nothing else is.
#[inline(always)]
fn arrive(ctx: &XdpContext) -> Option<u32> {
    let frame = start::<8>(ctx)?;
    // SAFETY: it is inside of the frame.
    let kind = unsafe { frame.byte_add(12) };
    // SAFETY: as above.
    let kind = unsafe { kind.cast::<u16>().read_unaligned() };
    if kind != 0x0800u16.to_be() {
        return None;
    }
    let count = ARRIVED.get_ptr_mut(0)?;
    // SAFETY: one CPU runs this program, and values of an array are memory until it ends.
    let count = unsafe { &mut *count };
    *count += 1;
    Some(*count - 1)
}

fn now() -> u64 {
    // SAFETY: it takes no arguments.
    unsafe { bpf_ktime_get_ns() }
}
