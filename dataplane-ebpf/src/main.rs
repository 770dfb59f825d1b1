//! XDP programs: thin shells round `dataplane-core`, which decides.
//!
//! [`frame`] is the packet, [`maps`] are the tables; all that is left to do here is to turn a verdict
//! into an XDP action.

#![no_std]
#![no_main]
// The compiler has no atomic read-modify-write for this target; the instructions are written out.
#![feature(asm_experimental_arch)]
// Whether an offset is a constant decides what the verifier can follow.
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "the compiler has no other way to tell what is known to it"
)]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the xdp macro makes a second function, public and without the documentation"
)]

mod frame;
mod maps;
mod skb;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use dataplane_core::{Action, Verdict, steer};

use crate::{frame::Frame, maps::Maps};

/// Steers a packet.
#[xdp(frags)]
#[inline(always)]
pub fn steer(ctx: XdpContext) -> u32 {
    run(ctx, &Maps::<false, false>)
}

/// Steers a packet where UEs are behind tunnels: the short way, and to [`steer_long`] what cannot take it.
#[xdp(frags)]
#[inline(always)]
pub fn steer_mobile(ctx: XdpContext) -> u32 {
    let ifindex = ctx.ingress_ifindex() as u32;
    let mut frame = Frame::new(ctx);
    match steer::short(&mut frame, ifindex, &Maps::<false, true>) {
        Some(verdict) => action(verdict, ifindex),
        None => maps::go_the_long_way(&frame.into_context()),
    }
}

/// Steers a packet where UEs are behind tunnels, the long way.
#[xdp(frags)]
#[inline(always)]
pub fn steer_long(ctx: XdpContext) -> u32 {
    let ifindex = ctx.ingress_ifindex() as u32;
    let maps = &Maps::<false, true>;
    action(
        steer::long(&mut Frame::new(ctx), ifindex, maps, maps::scratch),
        ifindex,
    )
}

/// Does to a packet what [`steer`] would do, and notes why. It changes no table but that.
#[xdp(frags)]
#[inline(always)]
pub fn explain(ctx: XdpContext) -> u32 {
    run(ctx, &Maps::<true, false>)
}

/// The same for [`steer_mobile`].
#[xdp(frags)]
#[inline(always)]
pub fn explain_mobile(ctx: XdpContext) -> u32 {
    run(ctx, &Maps::<true, true>)
}

#[inline(always)]
fn run<const READ_ONLY: bool, const TUNNELS: bool>(
    ctx: XdpContext,
    maps: &Maps<READ_ONLY, TUNNELS>,
) -> u32 {
    let ifindex = ctx.ingress_ifindex() as u32;
    action(
        steer::packet(&mut Frame::new(ctx), ifindex, maps, maps::scratch),
        ifindex,
    )
}

#[inline(always)]
fn action(verdict: Verdict, ifindex: u32) -> u32 {
    match verdict.action() {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Discard => xdp_action::XDP_DROP,
        Action::Redirect(slot) => maps::redirect(slot),
        // On veth, what XDP_TX sends waits for other traffic unless the far end runs XDP itself.
        // SAFETY: the helper has no preconditions.
        Action::Reflect => unsafe { aya_ebpf::helpers::generated::bpf_redirect(ifindex, 0) as u32 },
    }
}

/// Copies packets that DUPLICATE rules ask for. It runs after [`steer`], in traffic control: XDP cannot
/// both pass a packet on and send it elsewhere.
#[classifier]
pub fn copy(ctx: TcContext) -> i32 {
    skb::duplicate(&ctx).unwrap_or(TC_ACT_UNSPEC)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
