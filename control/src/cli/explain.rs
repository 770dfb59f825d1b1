//! Packets to ask about, and the daemon's answers.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use axum::http::Method;
use clap::Args;
use serde_json::json;

use super::{Output, client::Client, pcap, print, table};
use crate::dataplane::hex;

#[derive(Debug, Args)]
pub(super) struct Question {
    /// The port that the packet enters by
    #[arg(long = "in", value_name = "PORT")]
    port: String,
    #[command(flatten)]
    packet: Packet,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Packet {
    /// The first packet of a flow, like "udp 10.45.0.7:5000 > 203.0.113.9:443"; where UEs are behind tunnels, in that of
    /// the UE's session
    #[arg(long)]
    flow: Option<String>,
    /// The frame in hex
    #[arg(long, value_name = "BYTES")]
    hex: Option<String>,
    /// Every frame of a capture
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

/// Asks about each packet and shows what would become of it.
pub(super) fn explain(client: &Client, question: &Question) -> Result<bool> {
    let packets = match &question.packet {
        Packet {
            flow: Some(flow), ..
        } => vec![json!({"in": question.port, "flow": flow})],
        Packet {
            hex: Some(digits), ..
        } => vec![json!({"in": question.port, "hex": digits})],
        Packet {
            pcap: Some(path), ..
        } => {
            let file =
                std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let frames = pcap::frames(&file)
                .with_context(|| format!("{} is not a capture", path.display()))?;
            ensure!(!frames.is_empty(), "{} has no frames", path.display());
            frames
                .iter()
                .map(|frame| json!({"in": question.port, "hex": hex(frame)}))
                .collect()
        }
        Packet { .. } => bail!("say which packet: --flow, --hex or --pcap"),
    };
    // A capture is a list, however many frames it has.
    let listed = question.packet.pcap.is_some();
    let mut answers = Vec::new();
    for (index, packet) in packets.iter().enumerate() {
        let answer = client.send(Method::POST, "/mp2/v1/explain", Some(packet));
        answers.push(if listed {
            answer.with_context(|| format!("frame {}", index + 1))?
        } else {
            answer?
        });
    }
    let value = if listed {
        json!(answers)
    } else {
        json!(answers[0])
    };
    print(&match question.output {
        Output::Json => serde_json::to_string_pretty(&value)?,
        Output::Yaml => serde_yaml_ng::to_string(&value)?,
        Output::Table | Output::Wide => {
            let pairs = packets.iter().zip(&answers).enumerate();
            let texts = pairs.map(|(index, (packet, answer))| {
                let text = table::explanation(packet, answer);
                if listed {
                    format!("frame {}\n{text}", index + 1)
                } else {
                    text
                }
            });
            texts.collect::<Vec<_>>().join("\n")
        }
    })
}
