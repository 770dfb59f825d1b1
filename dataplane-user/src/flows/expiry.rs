//! Forgetting flows that are over.

use std::time::Duration;

use dataplane_core::{
    flow::{self, FlowHash, Half, Record},
    table::FlowTable as _,
    wire::{
        icmp::{ICMP, ICMPV6},
        transport::{TCP, Tcp, UDP},
    },
};

use super::{Context, Flows, last_seen, packets};
use crate::{Timeouts, ended::Ended};

/// Flows that are forgotten at a time, at most, so that nothing else waits for long.
const BATCH: usize = 4096;
/// How long even a full table remembers what has just begun: as long as it takes TCP to send its first segment
/// again (RFC 6298, section 2).
const AT_LEAST: Duration = Duration::from_secs(1);

/// What a call forgot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Flows.
    pub flows: usize,
    /// Those of them that a table with more room would have remembered.
    pub evicted: usize,
    /// There may be more: call again soon.
    pub more: bool,
    /// The table is nearly full, or was and has not emptied by half since.
    pub nearly_full: bool,
}

/// A look at all flows, part by part.
#[derive(Default)]
pub(super) struct Sweep {
    /// Where the next part begins.
    next: u32,
    /// Records that were free when it began.
    free: usize,
    /// As in [`Expired`].
    nearly_full: bool,
}

impl Sweep {
    /// Below this many free records the table is nearly full.
    const fn scarce(records: usize) -> usize {
        records / 4
    }

    fn begin(&mut self, used: usize, records: usize) {
        self.free = records.saturating_sub(used);
        let scarce = Self::scarce(records);
        self.nearly_full = self.free < scarce || self.nearly_full && self.free < records / 2;
    }

    /// How long to wait for the next packet of a flow that may be an attacker's: the fuller the table, the less.
    fn shortened(&self, patience: Duration, records: usize) -> Duration {
        let scarce = Self::scarce(records);
        if self.free >= scarce {
            return patience;
        }
        let part = patience.mul_f64(self.free as f64 / scarce as f64);
        part.max(AT_LEAST.min(patience))
    }
}

impl Flows {
    /// Forgets flows that are over, and tells what was counted of them, to the last packet. Answers what it
    /// forgot, and the packets of that.
    pub(crate) fn expire(
        &mut self,
        timeouts: &Timeouts,
        context: &Context<'_>,
        settle: impl FnOnce(),
        ended: &mut Ended,
    ) -> (Expired, u64) {
        if self.sweep.next == 0 {
            let used = self.live().count();
            self.sweep.begin(used, self.records.len());
        }
        let (over, evicted) = self.over(timeouts, context);
        let expired = Expired {
            flows: over.len(),
            evicted,
            more: self.sweep.next != 0,
            nearly_full: self.sweep.nearly_full,
        };
        if over.is_empty() {
            return (expired, 0);
        }
        for id in &over {
            self.close(*id);
        }
        // After this no packet counts in these records any more.
        settle();
        let records = over.iter().filter_map(|id| self.records.get(*id));
        let packets = records.map(packets).sum();
        for id in &over {
            if ended.is_heard()
                && let Some(record) = self.records.get(*id)
            {
                let flow = self.describe(*id, record, context);
                // Without a packet it was no flow: another CPU was faster to make it.
                if flow.upstream.packets + flow.downstream.packets != 0 {
                    ended.tell(flow);
                }
            }
            self.release(*id);
        }
        (expired, packets)
    }

    /// Flows in the next part that are over, and how many of them before their time.
    fn over(&mut self, timeouts: &Timeouts, context: &Context<'_>) -> (Vec<u32>, usize) {
        let (now, records) = (context.clock.jiffies(), self.records.len());
        let (mut over, mut evicted) = (Vec::new(), 0);
        for id in self.sweep.next..records as u32 {
            let Some(record) = self.records.get(id).filter(|it| it.live.get() != 0) else {
                continue;
            };
            if over.len() == BATCH {
                self.sweep.next = id;
                return (over, evicted);
            }
            let idle = context
                .clock
                .duration(now.saturating_sub(last_seen(record)));
            let usual = patience(record, timeouts);
            let patience = if is_confirmed(record) {
                usual
            } else {
                self.sweep.shortened(usual, records)
            };
            // An earlier process may have been killed while it freed the record.
            let half_freed = record.live.get() == 2;
            if half_freed || idle >= patience {
                over.push(id);
                evicted += usize::from(!half_freed && idle < usual);
            }
        }
        self.sweep.next = 0;
        (over, evicted)
    }

    /// Lets no key lead to a record any more.
    fn close(&self, id: u32) {
        self.remove_keys(id);
        if let Some(record) = self.records.get(id) {
            record.live.set(2);
            outdate(record);
        }
    }

    /// The reply's key first: a packet that then makes the flow anew finds none in its way.
    fn remove_keys(&self, id: u32) {
        let Some(record) = self.records.get(id) else {
            return;
        };
        for key in [record.reply.get(), record.key.get()] {
            flow::remove(self, id, FlowHash::new(&key, self.seed()));
        }
    }

    /// Makes a record free that no packet can reach.
    fn release(&mut self, id: u32) {
        self.former.remove(&id);
        // A packet may have changed the reply's key while the record was closed.
        self.remove_keys(id);
        let Some(record) = self.records.get(id) else {
            return;
        };
        // Nor is what packets noted that had found it before it was closed.
        outdate(record);
        record.clear();
        record.live.set(0);
        flow::release(self, id);
    }
}

/// What flow caches know of a record is not true any more.
fn outdate(record: &Record) {
    for half in &record.halves {
        half.generation.add(1);
    }
}

/// How long to wait for the next packet.
fn patience(record: &Record, timeouts: &Timeouts) -> Duration {
    match record.key.get().rest.protocol() {
        // After a FIN one way only, the other way goes on (RFC 9293, 3.6).
        TCP if either(record, Tcp::RST) || both(record, Tcp::FIN) => timeouts.tcp_closing,
        TCP if is_confirmed(record) => timeouts.tcp_established,
        TCP => timeouts.tcp_transitory,
        UDP => timeouts.udp,
        ICMP | ICMPV6 => timeouts.icmp,
        _ => timeouts.other,
    }
}

/// Whether the UE has gone on after an answer, as nobody does who sends from addresses of others. A TCP
/// connection is established then (RFC 9293, 3.5).
fn is_confirmed(record: &Record) -> bool {
    let [up, down] = &record.halves;
    let answered = up.last_seen.get() != 0 && down.last_seen.get() != 0;
    answered
        && match record.key.get().rest.protocol() {
            TCP => both(record, Tcp::ACK),
            _ => up.owned.packets.get() > 1 || record.others[0].packets.get() != 0,
        }
}

fn either(record: &Record, flag: u8) -> bool {
    let mut halves = record.halves.iter().map(Half::tcp_flags);
    halves.any(|flags| flags & flag != 0)
}

fn both(record: &Record, flag: u8) -> bool {
    let mut halves = record.halves.iter().map(Half::tcp_flags);
    halves.all(|flags| flags & flag != 0)
}
