//! What a benchmark runs in the kernel: a driver, and programs to compare with.
//!
//! The kernel runs a program on the same buffer again and again. The driver puts a packet of the next
//! flow there each time, and calls the program in question.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

/// Nothing to do on the host: the programs are for the kernel.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod live;
#[cfg(target_arch = "bpf")]
mod references;

#[cfg(target_arch = "bpf")]
mod programs {
    #![expect(
        unreachable_pub,
        reason = "the xdp macro makes a second function, which is public"
    )]

    use core::ptr;

    use aya_ebpf::{
        EbpfContext as _,
        bindings::xdp_action,
        btf_maps::{Array, ProgramArray},
        helpers::generated::{bpf_ktime_get_coarse_ns, bpf_xdp_adjust_head},
        macros::{btf_map, xdp},
        programs::XdpContext,
    };

    /// The longest frame, in words.
    type Frame = [u64; 16];

    /// Which frame is next, and how many there are less 1.
    #[btf_map]
    static STATE: Array<[u32; 2], 1> = Array::new();
    /// Frames, as many as a power of two.
    #[btf_map]
    static FRAMES: Array<Frame, 65_536> = Array::new();
    /// Octets that the front of packets moves by.
    #[btf_map]
    static SHIFT: Array<i32, 1> = Array::new();
    /// The program to call.
    #[btf_map]
    static TARGET: ProgramArray<1> = ProgramArray::new();

    /// Puts the next frame of 64 octets in place and calls the program.
    #[xdp(frags)]
    pub fn drive(ctx: XdpContext) -> u32 {
        run::<8>(&ctx)
    }

    /// The same with frames of 128 octets.
    #[xdp(frags)]
    pub fn drive_long(ctx: XdpContext) -> u32 {
        run::<16>(&ctx)
    }

    #[inline(always)]
    fn run<const WORDS: usize>(ctx: &XdpContext) -> u32 {
        // Where the program before has moved the front to, it stays.
        let moved = (ctx.data_end() - ctx.data()) as i32 - WORDS as i32 * 8;
        if moved != 0 {
            shift_by(ctx, moved);
        }
        if put_next::<WORDS>(ctx).is_none() {
            return xdp_action::XDP_ABORTED;
        }
        // Packets come to rest before a program sees them: this takes as long as all of it needs to reach the cache.
        // SAFETY: it takes no arguments.
        unsafe { bpf_ktime_get_coarse_ns() };
        // SAFETY: nothing here has to be dropped.
        unsafe { TARGET.tail_call(ctx, 0) };
        xdp_action::XDP_ABORTED
    }

    /// Puts the next frame in place, and answers where it begins.
    #[inline(always)]
    pub(crate) fn put_next<const WORDS: usize>(ctx: &XdpContext) -> Option<*mut u64> {
        let state = STATE.get_ptr_mut(0)?;
        // SAFETY: one CPU runs this program, and nothing else looks at it meanwhile.
        let [next, mask] = unsafe { &mut *state };
        let frame = FRAMES.get(*next & *mask)?;
        *next += 1;
        let start = start::<WORDS>(ctx)?;
        for (at, word) in frame.iter().take(WORDS).enumerate() {
            // SAFETY: there is room for all words, as was just seen.
            let to = unsafe { start.add(at) };
            // SAFETY: as above.
            unsafe { ptr::write_volatile(to, *word) };
        }
        Some(start)
    }

    /// Does nothing: what is measured of it is no cost of steering.
    #[xdp(frags)]
    pub fn empty(_: XdpContext) -> u32 {
        xdp_action::XDP_DROP
    }

    /// Moves the front of the packet, and does nothing else.
    #[xdp(frags)]
    pub fn shift(ctx: XdpContext) -> u32 {
        if let Some(delta) = SHIFT.get(0) {
            shift_by(&ctx, *delta);
        }
        xdp_action::XDP_DROP
    }

    pub(crate) fn shift_by(ctx: &XdpContext, delta: i32) {
        // SAFETY: the context is the one the program was called with, and no pointer into the packet is kept.
        unsafe { bpf_xdp_adjust_head(ctx.as_ptr().cast(), delta) };
    }

    /// Where the packet begins, if it is as long.
    pub(crate) fn start<const WORDS: usize>(ctx: &XdpContext) -> Option<*mut u64> {
        let start = ctx.data();
        (start + WORDS * 8 <= ctx.data_end()).then_some(start as *mut u64)
    }

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo) -> ! {
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 4] = *b"GPL\0";
}
