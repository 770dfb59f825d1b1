//! Reading flows, and forgetting those that are over.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use dataplane_core::{
    flow::{Half, Record},
    session::SessionRef,
    table::{Direction, FlowRef},
    wire::{
        icmp::{ICMP, ICMPV6},
        transport::{TCP, Tcp, UDP},
    },
};
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    Timeouts,
    clock::Clock,
    ended::Ended,
    install::Released,
    records::Records,
    rule::{Rule, RuleId},
};

/// A flow and what was counted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The UE's address.
    pub source: IpAddr,
    /// The address that the UE sends to.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// The UE's port, or the identifier of an echo.
    pub source_port: u16,
    /// The port that the UE sends to, or the identifier of an echo.
    pub destination_port: u16,
    /// Address space of the UE.
    pub zone: u16,
    /// The rule it comes under, or came under last; none if that went while another process was there.
    pub rule: Option<RuleId>,
    /// The port that its latest upstream packet came by.
    pub ingress: String,
    /// The application's address, where the rule names one.
    pub target: Option<String>,
    /// Packets from the UE.
    pub upstream: Count,
    /// Packets to the UE.
    pub downstream: Count,
    /// When the first packet came.
    pub first_seen: SystemTime,
    /// When the last packet came.
    pub last_seen: SystemTime,
    /// TCP control bits seen upstream and downstream, in the latest connection.
    pub tcp_flags: [u8; 2],
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes of the IP packets.
    pub bytes: u64,
    /// Bytes of the frames, link-layer header included.
    pub wire_bytes: u64,
}

/// Bytes as a map takes them.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Entry<T>(pub(crate) T);

// SAFETY: `IntoBytes` proves that there is no padding, `FromBytes` that any bytes are a value.
unsafe impl<T: IntoBytes + FromBytes + Copy + 'static> aya::Pod for Entry<T> {}

/// The flow table as user space sees it.
pub(crate) struct Flows {
    records: Records<Record>,
    /// Rules that flows came under last and that are gone, by the flow's record.
    former: HashMap<u32, Arc<Rule>>,
}

/// What flows are described with.
pub(crate) struct Context<'a> {
    pub(crate) clock: &'a Clock,
    /// Names of ports by slot.
    pub(crate) ports: BTreeMap<u16, String>,
    /// Rules by where they are counted.
    pub(crate) rules: BTreeMap<u32, &'a Rule>,
}

impl Flows {
    pub(crate) fn new(records: Records<Record>) -> Self {
        Self {
            records,
            former: HashMap::new(),
        }
    }

    fn live(&self) -> impl Iterator<Item = (u32, &Record)> {
        self.records.live()
    }

    /// How many there are, and their packets.
    pub(crate) fn count(&self) -> (usize, u64) {
        self.live().fold((0, 0), |(flows, sum), (_, record)| {
            (flows + 1, sum + packets(record))
        })
    }

    /// All flows.
    pub(crate) fn snapshot(&self, context: &Context<'_>) -> Vec<Flow> {
        self.live()
            .map(|(id, record)| self.describe(id, record, context))
            .collect()
    }

    /// One flow.
    pub(crate) fn get(&self, flow: FlowRef, context: &Context<'_>) -> Option<Flow> {
        let record = self.records.get(flow.id())?;
        Some(self.describe(flow.id(), record, context))
    }

    /// The sessions that flows belong to.
    pub(crate) fn sessions(&self) -> BTreeSet<u32> {
        self.live()
            .map(|(_, record)| SessionRef::from(record.session.get()))
            .filter(|session| session.generation() != 0)
            .map(SessionRef::id)
            .collect()
    }

    /// Remembers under which rules flows came, where these are gone and their counters will be those of others.
    pub(crate) fn part(&mut self, released: &Released) {
        if released.is_empty() {
            return;
        }
        for (id, record) in self.records.live() {
            let slot = (record.rule.get() as u32).checked_sub(1);
            if let Some(rule) = slot.and_then(|slot| released.get(&slot)) {
                self.former.extend(rule.clone().map(|rule| (id, rule)));
                record.rule.set(0);
            }
        }
    }

    /// Forgets flows that are over, and tells what was counted of them, to the last packet. Answers how many
    /// there were, and their packets.
    pub(crate) fn expire(
        &mut self,
        timeouts: &Timeouts,
        context: &Context<'_>,
        settle: impl FnOnce(),
        ended: &mut Ended,
    ) -> (usize, u64) {
        let now = context.clock.jiffies();
        let over: Vec<u32> = self
            .live()
            .filter(|(_, record)| {
                // An earlier process may have been killed while it freed the record.
                let half_freed = record.live.get() == 2;
                let idle = now.saturating_sub(last_seen(record));
                half_freed || context.clock.duration(idle) >= patience(record, timeouts)
            })
            .map(|(id, _)| id)
            .collect();
        if over.is_empty() {
            return (0, 0);
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
        (over.len(), packets)
    }

    fn describe(&self, id: u32, record: &Record, context: &Context<'_>) -> Flow {
        let key = record.key.get();
        let [up, down] = &record.halves;
        let slot = (record.rule.get() as u32).checked_sub(1);
        let rule = match slot {
            Some(slot) => context.rules.get(&slot).copied(),
            None => self.former.get(&id).map(|rule| &**rule),
        };
        let ingress = record.way_back().ue.get() as u16;
        let target = rule
            .and_then(|rule| rule.action.destination())
            .and_then(|it| it.endpoints().next());
        Flow {
            source: address(key.source),
            destination: address(key.destination),
            protocol: key.rest.protocol(),
            source_port: key.rest.source_port(),
            destination_port: key.rest.destination_port(),
            zone: key.rest.zone(),
            rule: rule.map(|rule| rule.id.clone()),
            ingress: context.ports.get(&ingress).cloned().unwrap_or_default(),
            target: target.map(ToString::to_string),
            upstream: count(record, Direction::Upstream),
            downstream: count(record, Direction::Downstream),
            first_seen: context.clock.time(record.first_seen.get()),
            last_seen: context.clock.time(last_seen(record)),
            tcp_flags: [up, down].map(Half::tcp_flags),
        }
    }

    /// Lets no key lead to a record any more.
    fn close(&self, id: u32) {
        self.remove_keys(id);
        if let Some(record) = self.records.get(id) {
            record.live.set(2);
            for half in &record.halves {
                half.generation.add(1);
            }
        }
    }

    /// The reply's key first: a packet that then makes the flow anew finds none in its way.
    fn remove_keys(&self, id: u32) {
        let Some(record) = self.records.get(id) else {
            return;
        };
        for key in [record.reply.get(), record.key.get()] {
            let leads_here = |word| FlowRef::from(word).id() == id;
            if self.records.find(key).is_some_and(leads_here) {
                self.records.remove(key);
            }
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
        record.clear();
        self.records.release(id);
    }
}

fn last_seen(record: &Record) -> u64 {
    let [up, down] = &record.halves;
    up.last_seen
        .get()
        .max(down.last_seen.get())
        .max(record.first_seen.get())
}

/// How long to wait for the next packet.
fn patience(record: &Record, timeouts: &Timeouts) -> Duration {
    let [up, down] = &record.halves;
    let flags = [up, down].map(Half::tcp_flags);
    let either = |flag: u8| flags.iter().any(|flags| flags & flag != 0);
    let both = |flag: u8| flags.iter().all(|flags| flags & flag != 0);
    match record.key.get().rest.protocol() {
        // After a FIN one way only, the other way goes on (RFC 9293, 3.6).
        TCP if either(Tcp::RST) || both(Tcp::FIN) => timeouts.tcp_closing,
        TCP if up.last_seen.get() != 0 && down.last_seen.get() != 0 => timeouts.tcp_established,
        TCP => timeouts.tcp_transitory,
        UDP => timeouts.udp,
        ICMP | ICMPV6 => timeouts.icmp,
        _ => timeouts.other,
    }
}

/// Packets in both directions.
fn packets(record: &Record) -> u64 {
    let directions = [Direction::Upstream, Direction::Downstream];
    let packets = directions.map(|direction| record.counted(direction)[0]);
    packets.iter().sum()
}

fn count(record: &Record, direction: Direction) -> Count {
    let [packets, bytes, wire_bytes] = record.counted(direction);
    Count {
        packets,
        bytes,
        wire_bytes,
    }
}

/// The address that the tables hold in this form.
pub(crate) fn address([high, low]: [u64; 2]) -> IpAddr {
    let address = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
    address
        .to_ipv4_mapped()
        .map_or(IpAddr::V6(address), IpAddr::V4)
}
