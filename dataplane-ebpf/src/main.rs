//! XDP programs: thin shells round `dataplane-core`, which decides.
//!
//! [`frame`] is the packet, [`maps`] are the tables; all that is left to do here is to turn a verdict
//! into an XDP action.

#![no_std]
#![no_main]
// The compiler has no atomic read-modify-write for this target; the instructions are written out.
#![feature(asm_experimental_arch)]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the xdp macro makes a second function, public and without the documentation"
)]

mod frame;
mod maps;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use dataplane_core::{Action, steer};

use crate::{frame::Frame, maps::Maps};

/// Steers a packet.
#[xdp(frags)]
pub fn steer(ctx: XdpContext) -> u32 {
    let ifindex = ctx.ingress_ifindex() as u32;
    let Some(scratch) = maps::scratch() else {
        return xdp_action::XDP_PASS;
    };
    let verdict = steer::packet(&mut Frame::new(ctx), ifindex, &Maps, scratch);
    match verdict.action {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Discard => xdp_action::XDP_DROP,
        Action::Redirect(slot) => maps::redirect(slot),
        Action::Reflect => xdp_action::XDP_TX,
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
