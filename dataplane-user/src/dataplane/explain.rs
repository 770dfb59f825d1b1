//! The program, run on single frames to see what it would do.

use std::io;

use aya::{Ebpf, TestRun as _, TestRunOptions};
use dataplane_core::{Reason, table::FlowRef};

use super::Dataplane;
use crate::{
    Error, Flow, Mode,
    memory::Memory,
    program,
    rule::{BackendId, RuleId},
};

/// What would become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Why it would end as it does.
    pub reason: Reason,
    /// The rule it comes under.
    pub rule: Option<RuleId>,
    /// The backend of it that was chosen, if it is a VIP's.
    pub backend: Option<BackendId>,
    /// The flow it belongs to, as it is now.
    pub flow: Option<Flow>,
    /// Where it would go: `pass`, `drop` or `redirect`.
    pub action: &'static str,
    /// The port it would leave by.
    pub target_port: Option<String>,
    /// The packet as it would be then.
    pub frame_out: Vec<u8>,
}

impl Dataplane {
    /// Runs the program on a frame, as if it came by `port`, without any traffic and without a trace.
    pub fn explain(&mut self, port: &str, frame: &[u8]) -> Result<Explanation, Error> {
        let ifindex = self
            .ports
            .iter()
            .find(|it| it.config.name == port && it.mode != Mode::Down);
        let ifindex = ifindex
            .and_then(|port| port.ifindex)
            .ok_or_else(|| Error::NoPort(port.to_owned()))?;
        let (action, frame_out) = test_run(&mut self.explain, self.names.explain, ifindex, frame)?;
        let found = self
            .memory
            .explanation
            .get(0)
            .ok_or_else(|| Error::NoPort(port.to_owned()))?;
        let reason = Reason::ALL
            .get(found.reason.get() as usize)
            .copied()
            .unwrap_or(Reason::NoRule);
        let cell = (found.action.get() as u32).checked_sub(1);
        let taken = cell.and_then(|cell| self.memory.actions.get(cell as usize));
        let flow = found.flow.get().checked_sub(1);
        let flow = flow.map(|flow| FlowRef::from(flow as u32));
        let sent = (found.sent.get() as u16).checked_sub(1);
        let context = self.context();
        let counted = taken.and_then(|it| context.rules.get(&it.rule));
        Ok(Explanation {
            reason,
            rule: counted.map(|it| it.rule.id.clone()),
            backend: counted.and_then(|it| it.backend).map(|it| it.id.clone()),
            flow: flow.and_then(|flow| self.flows.get(flow, &context)),
            action: match action {
                1 => "drop",
                2 => "pass",
                4 => "redirect",
                _ => "aborted",
            },
            target_port: match (action, sent) {
                (4, None) => Some(port.to_owned()),
                _ => sent.and_then(|slot| context.ports.get(&slot).cloned()),
            },
            frame_out,
        })
    }
}

/// Runs the program on a frame. Answers the XDP action and the frame afterwards.
fn test_run(
    ebpf: &mut Ebpf,
    name: &str,
    ifindex: u32,
    frame: &[u8],
) -> Result<(u32, Vec<u8>), Error> {
    if frame.len() < 14 {
        return Err(Error::ShortFrame(frame.len()));
    }
    // `struct xdp_md`: where the data ends, and the interface it came by.
    let mut context = [0u32; 6];
    context[1] = frame.len() as u32;
    context[3] = ifindex;
    let mut out = vec![0; frame.len() + 256];
    let result = program::xdp(ebpf, name)?.test_run(TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(zerocopy::IntoBytes::as_bytes(&context)),
        ..TestRunOptions::default()
    });
    let result =
        result.map_err(|error| Error::kernel("cannot run the program on the frame", &error))?;
    out.truncate(result.data_size_out as usize);
    Ok((result.return_value, out))
}

/// The kernel's jiffies.
pub(super) fn jiffies(ebpf: &mut Ebpf, name: &str, memory: &Memory) -> Result<u64, Error> {
    // Loopback is no port, so the program only notes the time.
    test_run(ebpf, name, 0, &[0; 14])?;
    let missing = || {
        Error::kernel(
            "cannot read the time",
            &io::Error::from(io::ErrorKind::NotFound),
        )
    };
    memory
        .explanation
        .get(0)
        .map(|found| found.now.get())
        .ok_or_else(missing)
}
