//! The maps, and looking things up in them.

use core::{
    arch::asm,
    cell::{Cell, UnsafeCell},
    hint::assert_unchecked,
    mem::MaybeUninit,
    ptr,
};

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_NOEXIST, xdp_action},
    btf_maps::{Array, DevMap, HashMap, LruHashMap, ProgramArray, Stack},
    helpers::generated::bpf_redirect_map,
    macros::btf_map,
    programs::XdpContext,
};
use dataplane_core::{
    Action, Verdict, Word,
    classify::{self, Answer, InTunnel, Query, Walk},
    flow::{self, Bucket, FlowKey, Record, SharedKey},
    session::{Session, SessionRef},
    steer::Scratch,
    table::{
        self, AffinityKey, CHANGES, CHOICES, CacheSet, Cells, ENDPOINTS, Endpoints, Explanation,
        Filter, Fixed, FlowRef, FlowTable, FragmentKey, Hop, INTERFACES, Inserted, Names, PORTS,
        Passage, Port, PortCounts, RuleAction, RuleCount, RuleTables, SessionTable, Side, Split,
        State, TARGETS, Tables, Target, Trace, TunnelFilter,
    },
};

use crate::frame::Chunk;

/// User space maps these into its memory.
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

/// Rules at most: the stride of a CPU's part of [`RULE_COUNTS`].
#[unsafe(no_mangle)]
static RULES: Global<u32> = Global::new(1);
/// Buckets of the flow table, a power of two, less 1.
#[unsafe(no_mangle)]
static FLOW_MASK: Global<u32> = Global::new(0);
/// Sets of a CPU's flow cache, a power of two, less 1.
#[unsafe(no_mangle)]
static CACHE_MASK: Global<u32> = Global::new(0);

// Where 1 entry is defined, the number is set at load.

/// What is found without a look-up. It is the only global data that is not constant, so it is all of `.bss`.
#[unsafe(no_mangle)]
static FIXED: Zeros<Fixed> = Zeros(UnsafeCell::new(MaybeUninit::zeroed()));

/// Ports by slot, to leave by.
#[btf_map(name = "PORTS")]
static PORT_TABLE: Array<Port, { PORTS as usize }> = Array::new();
/// Interfaces by slot, to leave by.
#[btf_map]
static DEVICES: DevMap<{ PORTS as usize }> = DevMap::new();

/// Cells of the rule set.
#[btf_map]
static SPLITS: Array<Split, 1, MMAPABLE> = Array::new();
/// Cells of the rule set.
#[btf_map]
static FILTERS: Array<Filter, 1, MMAPABLE> = Array::new();
/// Cells of the rule set.
#[btf_map]
static TUNNEL_FILTERS: Array<TunnelFilter, 1, MMAPABLE> = Array::new();
/// Cells of the rule set.
#[btf_map]
static ACTIONS: Array<RuleAction, 1, MMAPABLE> = Array::new();
/// Next hops, a word each.
#[btf_map]
static HOPS: Array<Word, 1, MMAPABLE> = Array::new();
/// Tunnels, each to the next hop in the same cell.
#[btf_map(name = "TARGETS")]
static TARGET_TABLE: Array<Target, { TARGETS as usize }, MMAPABLE> = Array::new();
/// The same by what answers that come by them are known by.
#[btf_map]
static OPENINGS: HashMap<FlowKey, u32, { TARGETS as usize }> = HashMap::new();

/// Tables of backends by the hash of a flow.
#[btf_map(name = "CHOICES")]
static CHOICE_TABLE: Array<Word, 1, MMAPABLE> = Array::new();
/// Backends by where they are counted.
#[btf_map]
static BACKENDS: Array<Word, 1, MMAPABLE> = Array::new();
/// Backends of UEs.
#[btf_map]
static AFFINITIES: LruHashMap<AffinityKey, u64, 1> = LruHashMap::new();

/// Sets of the flow cache, CPU after CPU. Nobody maps it; but only the elements of maps that can be mapped
/// begin where lines of a CPU's cache do.
#[btf_map]
static CACHE: Array<CacheSet, 1, MMAPABLE> = Array::new();
/// The flow table: the keys of a flow lead to its record.
#[btf_map]
static FLOWS: Array<Bucket, 1, MMAPABLE> = Array::new();
/// The records.
#[btf_map]
static RECORDS: Array<Record, 1, MMAPABLE> = Array::new();
/// Which of them is the first that is free.
#[btf_map]
static FREE: Array<Word, 1, MMAPABLE> = Array::new();
/// The session table: a UE's address, or a tunnel from or to a UE, leads to its session.
#[btf_map]
static SESSIONS: HashMap<FlowKey, u64, 1> = HashMap::new();
/// The sessions.
#[btf_map]
static SESSION_RECORDS: Array<Session, 1, MMAPABLE> = Array::new();
/// How often sessions have changed, by their numbers, of which several share one.
#[btf_map(name = "CHANGES")]
static CHANGE_TABLE: Array<Word, { CHANGES as usize }, MMAPABLE> = Array::new();
/// Sessions that are free.
#[btf_map]
static FREE_SESSIONS: Stack<u32, 1> = Stack::new();
/// Where the endpoints of tunnels are.
#[btf_map(name = "ENDPOINTS")]
static ENDPOINT_TABLE: Array<[Endpoints; ENDPOINTS as usize], 1, MMAPABLE> = Array::new();
/// Ports of datagrams that come in fragments.
#[btf_map]
static FRAGMENTS: LruHashMap<FragmentKey, u32, 1> = LruHashMap::new();

/// What is counted of ports, by CPU.
#[btf_map]
static COUNTS: Array<PortCounts, 1, MMAPABLE> = Array::new();
/// Packets and bytes by CPU and rule.
#[btf_map]
static RULE_COUNTS: Array<RuleCount, 1, MMAPABLE> = Array::new();
/// When a CPU last told a sender of an MTU.
#[btf_map]
static TOLD: Array<Word, 1> = Array::new();
/// What became of a packet that was asked about.
#[btf_map]
static EXPLANATION: Array<Explanation, 1, MMAPABLE> = Array::new();

/// Where each CPU keeps the facts of the packet in hand.
#[btf_map]
static SCRATCH: Array<Scratch, 1> = Array::new();

/// Where each CPU puts pieces of a packet.
#[btf_map]
static CHUNKS: Array<Chunk, 1> = Array::new();

/// The program that packets go to which cannot take the short way.
#[btf_map]
static LONG_WAY: ProgramArray<1> = ProgramArray::new();

/// Memory that begins as zeros, and that user space changes.
#[repr(transparent)]
struct Zeros<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: what is in there is made of words that are read and written whole.
unsafe impl<T> Sync for Zeros<T> {}

/// What is found without a look-up.
fn fixed() -> &'static Fixed {
    let mut fixed = FIXED.0.get().cast_const().cast::<Fixed>();
    // SAFETY: changes nothing. Or the compiler, which sees nobody write it, takes it for zeros.
    unsafe { asm!("/* {0} */", inout(reg) fixed, options(pure, readonly, nostack)) };
    // SAFETY: it is there for as long as the program is, and any bits make one.
    unsafe { &*fixed }
}

/// The maps of this program. With `READ_ONLY`, packets are only asked about: nothing is changed or counted.
/// With `TUNNELS`, packets are looked for in tunnels.
pub(crate) struct Maps<const READ_ONLY: bool, const TUNNELS: bool>;

/// Sends the packet out of the port in `slot`, or to the kernel when no interface is there.
pub(crate) fn redirect(slot: u16) -> u32 {
    let devices = (&raw const DEVICES).cast_mut().cast();
    // SAFETY: it is a map of devices.
    unsafe { bpf_redirect_map(devices, slot.into(), xdp_action::XDP_PASS.into()) as u32 }
}

/// Has a packet go the long way; it is passed when that is not there.
pub(crate) fn go_the_long_way(ctx: &XdpContext) -> u32 {
    // SAFETY: nothing here has to be dropped.
    unsafe { LONG_WAY.tail_call(ctx, 0) };
    xdp_action::XDP_PASS
}

/// This CPU's scratch.
pub(crate) fn scratch() -> Option<&'static mut Scratch> {
    let scratch = SCRATCH.get_ptr_mut(cpu())?;
    // SAFETY: it is this CPU's alone, which handles one packet at a time; zeros make a `Scratch`.
    Some(unsafe { &mut *scratch })
}

/// This CPU's room for a piece of a packet.
pub(crate) fn chunk() -> Option<&'static mut Chunk> {
    let chunk = CHUNKS.get_ptr_mut(cpu())?;
    // SAFETY: it is this CPU's alone, which handles one packet at a time.
    Some(unsafe { &mut *chunk })
}

/// A key in shared memory, for helpers, which make a copy of it.
const fn plain(key: &SharedKey) -> &FlowKey {
    // SAFETY: both have the same words.
    unsafe { &*ptr::from_ref(key).cast::<FlowKey>() }
}

/// This CPU. Written out, so that the compiler knows that it does not change and asks once.
fn cpu() -> u32 {
    let cpu: u64;
    // SAFETY: `bpf_get_smp_processor_id` has no preconditions and changes nothing.
    unsafe {
        asm!(
            "call 8",
            lateout("r0") cpu,
            out("r1") _,
            out("r2") _,
            out("r3") _,
            out("r4") _,
            out("r5") _,
            options(pure, nomem, nostack),
        );
    }
    // SAFETY: its result is an int. What is above that need not be cleared each time it is used.
    unsafe { assert_unchecked(cpu <= u32::MAX as u64) };
    cpu as u32
}

/// Finds the first rule that matches; an [`Answer`] as a word. A function with a symbol of its own is
/// verified once, for any argument, instead of at each call. So is each part of the walk.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn classify(query: *const Query, walk: *mut Walk) -> u64 {
    classify::to_the_end(|| walk_on(query, walk).into()).into()
}

/// A part of the walk.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_on(query: *const Query, walk: *mut Walk) -> u64 {
    if query.is_null() || walk.is_null() {
        return 0;
    }
    // SAFETY: it is not null, so the verifier holds every caller to it being a whole `Query`.
    let query = unsafe { &*query };
    // SAFETY: as above.
    let walk = unsafe { &*walk };
    classify::walk(&Maps::<true, false>, query, &InTunnel::NONE, walk).into()
}

/// [`classify`] where packets may be in tunnels.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn classify_mobile(
    query: *const Query,
    tunnel: *const InTunnel,
    walk: *mut Walk,
) -> u64 {
    classify::to_the_end(|| walk_on_mobile(query, tunnel, walk).into()).into()
}

/// A part of the walk.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_on_mobile(query: *const Query, tunnel: *const InTunnel, walk: *mut Walk) -> u64 {
    if query.is_null() || tunnel.is_null() || walk.is_null() {
        return 0;
    }
    // SAFETY: as above.
    let query = unsafe { &*query };
    // SAFETY: as above.
    let tunnel = unsafe { &*tunnel };
    // SAFETY: as above.
    let walk = unsafe { &*walk };
    classify::walk(&Maps::<true, true>, query, tunnel, walk).into()
}

/// [`flow::look_up`]; a [`FlowRef`] as a word, or more than that can be.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_flow(key: *const FlowKey) -> u64 {
    if key.is_null() {
        return u64::MAX;
    }
    // SAFETY: as above.
    let key = unsafe { &*key };
    flow::look_up(&Maps::<true, false>, key).map_or(u64::MAX, |flow| u32::from(flow).into())
}

/// [`flow::add`]; [`Inserted`] as a word.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn add_flow(id: u32) -> u64 {
    flow::add(&Maps::<true, false>, u64::from(cpu()) + 1, id) as u64
}

/// [`flow::forget`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn forget_flow(id: u32, key: *const FlowKey) -> u64 {
    if key.is_null() {
        return 0;
    }
    // SAFETY: as above.
    let key = unsafe { &*key };
    flow::forget(&Maps::<true, false>, id, key);
    0
}

impl<const READ_ONLY: bool, const TUNNELS: bool> Cells for Maps<READ_ONLY, TUNNELS> {
    fn exchange(&self, cell: &Word, expected: u64, new: u64) -> u64 {
        let mut found = expected;
        // SAFETY: the reference proves that the memory is there and shared.
        unsafe {
            asm!(
                "r0 = cmpxchg_64({0} + 0, r0, {1})",
                in(reg) cell.as_ptr(),
                in(reg) new,
                inout("r0") found,
            );
        }
        found
    }

    fn add(&self, sum: &Word, value: u64) {
        // SAFETY: as above.
        unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) sum.as_ptr(), in(reg) value) };
    }
}

impl<const READ_ONLY: bool, const TUNNELS: bool> FlowTable for Maps<READ_ONLY, TUNNELS> {
    fn seed(&self) -> u64 {
        fixed().state.seed.get()
    }

    fn bucket(&self, number: u32) -> Option<&Bucket> {
        FLOWS.get(number & FLOW_MASK.load())
    }

    fn record(&self, id: u32) -> Option<&Record> {
        RECORDS.get(id)
    }

    fn free(&self) -> Option<&Word> {
        FREE.get(0)
    }
}

impl<const READ_ONLY: bool, const TUNNELS: bool> SessionTable for Maps<READ_ONLY, TUNNELS> {
    fn session(&self, key: &SharedKey) -> Option<SessionRef> {
        // SAFETY: the value is copied at once; a word is read whole.
        let word = unsafe { SESSIONS.get(plain(key)) }?;
        Some((*word).into())
    }

    fn add_session(&self, key: &SharedKey, session: SessionRef) -> bool {
        let flags = BPF_NOEXIST.into();
        SESSIONS
            .insert(plain(key), u64::from(session), flags)
            .is_ok()
    }

    fn set_session(&self, key: &SharedKey, session: SessionRef) -> bool {
        SESSIONS.insert(plain(key), u64::from(session), 0).is_ok()
    }

    fn remove_session(&self, key: &SharedKey) {
        // It may be gone already.
        let _: Result<(), i32> = SESSIONS.remove(plain(key));
    }

    fn allocate_session(&self) -> Option<u32> {
        FREE_SESSIONS.pop().ok()?
    }

    fn release_session(&self, id: u32) {
        // There is room for every session.
        let _: Result<(), i32> = FREE_SESSIONS.push(id, 0);
    }

    fn session_record(&self, id: u32) -> Option<&Session> {
        SESSION_RECORDS.get(id)
    }

    fn session_changed(&self, id: u32) {
        if let Some(changes) = CHANGE_TABLE.get(id % CHANGES) {
            self.add(changes, 1);
        }
    }
}

impl<const READ_ONLY: bool, const TUNNELS: bool> RuleTables for Maps<READ_ONLY, TUNNELS> {
    const TUNNELS: bool = TUNNELS;

    fn state(&self) -> Option<&State> {
        Some(&fixed().state)
    }

    fn split(&self, cell: u32) -> Option<&Split> {
        SPLITS.get(cell)
    }

    fn filter(&self, cell: u32) -> Option<&Filter> {
        FILTERS.get(cell)
    }

    fn tunnel_filter(&self, cell: u32) -> Option<&TunnelFilter> {
        TUNNEL_FILTERS.get(cell)
    }

    fn action(&self, cell: u32) -> Option<&RuleAction> {
        ACTIONS.get(cell)
    }

    fn hop(&self, index: u32) -> Option<Hop> {
        Hop::of(HOPS.get(index)?.get())
    }

    fn target(&self, cell: u32) -> Option<&Target> {
        TARGET_TABLE.get(cell)
    }
}

impl<const READ_ONLY: bool, const TUNNELS: bool> Tables for Maps<READ_ONLY, TUNNELS> {
    fn read_only(&self) -> bool {
        READ_ONLY
    }

    fn port(&self, ifindex: u32) -> Option<&Port> {
        // It is below; a verifier knows what remains.
        let port = &fixed().interfaces[ifindex as usize % INTERFACES as usize];
        // SAFETY: both have the same words.
        let port = unsafe { &*ptr::from_ref(port).cast::<Port>() };
        Some(port).filter(|port| port.is_present())
    }

    fn port_in(&self, slot: u16) -> Option<&Port> {
        PORT_TABLE.get(slot.into()).filter(|port| port.is_present())
    }

    fn classify(&self, query: &Cell<Query>, tunnel: &Cell<InTunnel>, walk: &Walk) -> Answer {
        let walk = ptr::from_ref(walk).cast_mut();
        if TUNNELS {
            classify_mobile(query.as_ptr(), tunnel.as_ptr(), walk).into()
        } else {
            classify(query.as_ptr(), walk).into()
        }
    }

    fn session_changes(&self, id: u32) -> u64 {
        CHANGE_TABLE.get(id % CHANGES).map_or(0, Word::get)
    }

    fn names(&self) -> Option<&Names> {
        Some(&fixed().names)
    }

    fn opening(&self, key: &FlowKey) -> Option<u32> {
        // SAFETY: the value is copied at once.
        unsafe { OPENINGS.get(key) }.copied()
    }

    fn choice(&self, table: u32, word: u32) -> Option<&Word> {
        CHOICE_TABLE.get(table * CHOICES + word)
    }

    fn backend(&self, slot: u32) -> Option<&Word> {
        BACKENDS.get(slot)
    }

    fn affinity(&self, key: &AffinityKey) -> Option<&Word> {
        let word = AFFINITIES.get_ptr(key)?;
        // SAFETY: a word, which may be the one of another UE by now: then this one's time-out is taken for it.
        Some(unsafe { &*word.cast::<Word>() })
    }

    fn remember_affinity(&self, key: &AffinityKey, affinity: u64) {
        // Without it, the table is asked again.
        let _: Result<(), i32> = AFFINITIES.insert(key, affinity, 0);
    }

    fn cache(&self, hash: u32) -> Option<&CacheSet> {
        let mask = CACHE_MASK.load();
        CACHE.get(cpu() * (mask + 1) + (hash & mask))
    }

    fn flow(&self, key: &FlowKey) -> Option<FlowRef> {
        let word = find_flow(key);
        (word <= u32::MAX.into()).then(|| (word as u32).into())
    }

    fn flow_at(&self, key: &SharedKey) -> Option<FlowRef> {
        self.flow(plain(key))
    }

    fn add_flow(&self, id: u32) -> Inserted {
        match add_flow(id) {
            word if word == Inserted::Done as u64 => Inserted::Done,
            word if word == Inserted::Exists as u64 => Inserted::Exists,
            _ => Inserted::Full,
        }
    }

    fn forget_flow(&self, id: u32, key: &SharedKey) {
        forget_flow(id, plain(key));
    }

    fn side(&self, address: &[u64; 2]) -> Side {
        let Some(endpoints) = ENDPOINT_TABLE.get(0) else {
            return Side::None;
        };
        table::side(endpoints, *address)
    }

    fn fragment(&self, key: &FragmentKey) -> Option<u32> {
        // SAFETY: the value is copied at once.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    fn remember_fragment(&self, key: &FragmentKey, ports: u32) {
        // Without room, later fragments are counted as unknown.
        let _: Result<(), i32> = FRAGMENTS.insert(key, ports, 0);
    }

    fn count(&self, slot: u16, verdict: Verdict, bytes: u64) {
        if READ_ONLY {
            if let Some(explanation) = EXPLANATION.get(0) {
                explanation.reason.set(verdict.reason().into());
                if let Action::Redirect(slot) = verdict.action() {
                    explanation.sent.set(u64::from(slot) + 1);
                }
            }
        } else if let Some(counts) = COUNTS.get(cpu()) {
            counts.add(slot, verdict, bytes);
        }
    }

    fn count_passage(&self, passage: Passage, bytes: u64) {
        if let Some(counts) = COUNTS.get(cpu()) {
            counts.add_passage(passage, bytes);
        }
    }

    fn missed(&self) {
        if let Some(counts) = COUNTS.get(cpu()) {
            counts.missed.set(counts.missed.get() + 1);
        }
    }

    fn rechosen(&self) {
        if let Some(counts) = COUNTS.get(cpu()) {
            counts.rechosen.set(counts.rechosen.get() + 1);
        }
    }

    fn rule_place(&self, rule: u32) -> u32 {
        cpu() * RULES.load() + rule
    }

    fn rule_at(&self, place: u32) -> Option<&RuleCount> {
        RULE_COUNTS.get(place)
    }

    fn told(&self) -> Option<&Word> {
        TOLD.get(cpu())
    }

    fn again(&self, word: &Word) -> u64 {
        let value;
        // SAFETY: the reference proves that the memory is there.
        unsafe { asm!("{0} = *(u64 *)({1} + 0)", out(reg) value, in(reg) word.as_ptr()) };
        value
    }

    fn set_bits(&self, bits: &Word, value: u64) {
        // SAFETY: the reference proves that the memory is there and shared.
        unsafe { asm!("lock *(u64 *)({0} + 0) |= {1}", in(reg) bits.as_ptr(), in(reg) value) };
    }

    fn now(&self) -> u64 {
        let now: u64;
        // SAFETY: `bpf_jiffies64` has no preconditions and changes nothing.
        unsafe {
            asm!(
                "call 118",
                lateout("r0") now,
                out("r1") _,
                out("r2") _,
                out("r3") _,
                out("r4") _,
                out("r5") _,
                options(pure, nomem, nostack),
            );
        }
        now
    }

    fn cpu(&self) -> u32 {
        cpu()
    }

    fn explain(&self, trace: Trace) {
        if self.read_only()
            && let Some(explanation) = EXPLANATION.get(0)
        {
            explanation.now.set(self.now());
            explanation.sent.set(0);
            explanation.flow.set(trace.flow);
            explanation.action.set(trace.action.into());
        }
    }
}
