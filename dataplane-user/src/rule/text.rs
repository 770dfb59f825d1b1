//! The one-line text form of a rule.
//!
//! ```text
//! rule     = APP/RULE prio N (flow | packet) filter { or filter } action
//! filter   = any | [from A,..] [to A,..] [proto P,..] [sport R,..] [dport R,..] [dscp N] [tc N] [zone N] [tunnel]
//! tunnel   = [tunnel-from A,..] [tunnel-to A,..] [tunnel-sport R,..] [tunnel-dport R,..] [qci N]
//! action   = drop | passthrough | (forward | duplicate) [encapsulated] endpoint [and endpoint] | balance
//! balance  = balance [silent] [ue SECONDS] { backend ID weight N (up | draining | down) endpoint } [else endpoint]
//! endpoint = (mac M | ip A [nat [N]] | target) [via PORT]
//! target   = gtpu A [from A] teid N [qfi N] | gre A [from A] [key N] | vxlan A [from A] vni N mac M
//! ```

mod read;
mod write;

use std::str::FromStr;

use read::Words;

use super::{ParseError, Rule};

impl FromStr for Rule {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refuse = |why: String| ParseError::new("a rule", text, why);
        let rule = Words::of(text).rule().map_err(refuse)?;
        rule.check()
            .map_err(|contradiction| refuse(contradiction.to_string()))?;
        Ok(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_lines_round_trip() {
        for line in [
            "video/r1 prio 10 flow from 10.45.0.0/16 to 203.0.113.9 proto tcp dport 80,443 forward ip 192.0.2.10 nat via app0",
            "a/b prio 0 packet any drop",
            "a/b prio 255 flow dscp 46 tc 184 zone 3 passthrough",
            "a%2F1/b%20c prio 1 flow proto udp,132,7 sport 1-2,9 or to 2001:db8::/32 or any duplicate mac 02:00:00:00:00:01",
            "a/b prio 1 flow any forward encapsulated mac 02:00:00:00:00:01 via ue0 and mac 02:00:00:00:00:02 via core%200",
            "a/b prio 1 flow from 10.0.0.1-10.0.0.9,::1 duplicate encapsulated ip 2001:db8::1",
            "a/b prio 1 flow to 203.0.113.9 tunnel-from 192.0.2.0/24,2001:db8::1 tunnel-to 198.51.100.1 tunnel-sport 2152 \
             tunnel-dport 2000-2152 qci 5 or qci 255 drop",
            "a/b prio 1 flow any forward gtpu 192.0.2.7 from 192.0.2.1 teid 4660 qfi 9 via n9",
            "a/b prio 1 flow any forward gtpu 2001:db8::7 teid 1",
            "a/b prio 1 flow any forward encapsulated gre 192.0.2.7 key 0",
            "a/b prio 1 packet any forward gre 192.0.2.7",
            "a/b prio 1 flow proto tcp forward ip 192.0.2.10 nat 8080 via app0",
            "a/b prio 128 flow to 203.0.113.9 proto tcp,udp balance ue 3600 backend a%20b weight 1 up ip 192.0.2.10 nat 80 via app0 \
             backend c weight 0 draining mac 02:00:00:00:00:01 backend d weight 65535 down ip 192.0.2.11 else gre 192.0.2.7 key 0",
            "a/b prio 128 flow to 203.0.113.9 balance",
            "a/b prio 128 flow to 203.0.113.9 balance silent ue 60",
            "a/b prio 1 flow any forward vxlan 192.0.2.7 vni 16777215 mac 02:00:00:00:00:01 via app0",
        ] {
            let line = line.replace("132,7", "sctp,7");
            let rule: Rule = line.parse().unwrap();
            assert_eq!(rule.to_string(), line);
        }
    }

    #[test]
    fn a_refusal_names_the_word() {
        for (line, word) in [
            ("", "rule id"),
            ("a/b", "prio"),
            ("a/b prio 256 flow any drop", "256"),
            ("a/b prio 1 flows any drop", "flows"),
            ("a/b prio 1 flow drop", "any"),
            ("a/b prio 1 flow from x drop", "x"),
            ("a/b prio 1 flow from 10.0.0.1 from 10.0.0.2 drop", "from"),
            ("a/b prio 1 flow proto http drop", "http"),
            ("a/b prio 1 flow dscp 64 drop", "DSCP"),
            ("a/b prio 1 flow qci 0 drop", "QCI"),
            ("a/b prio 1 flow qci 256 drop", "256"),
            (
                "a/b prio 1 flow tunnel-from 192.0.2.1 tunnel-to ::1 drop",
                "of the tunnel",
            ),
            ("a/b prio 1 flow tunnel-from gnb drop", "gnb"),
            ("a/b prio 1 flow any", "drop"),
            ("a/b prio 1 flow any forward", "mac"),
            ("a/b prio 1 flow any forward ip 10.0.0.300", "10.0.0.300"),
            ("a/b prio 1 flow any forward gtpu 192.0.2.7", "teid"),
            ("a/b prio 1 flow any forward gtpu 192.0.2.7 teid 0", "TEID"),
            (
                "a/b prio 1 flow any forward gtpu 192.0.2.7 teid 1 qfi 64",
                "QFI",
            ),
            ("a/b prio 1 flow any forward gre 224.0.0.1", "host"),
            ("a/b prio 1 flow any forward gre 192.0.2.7 from ::1", "host"),
            (
                "a/b prio 1 flow any forward gre 192.0.2.7 from 2001:db8::1",
                "one IP version",
            ),
            ("a/b prio 1 flow any forward gre 192.0.2.7 key x", "`x`"),
            (
                "a/b prio 1 flow any forward vxlan 192.0.2.7 vni 16777216 mac 02:00:00:00:00:01",
                "VNI",
            ),
            (
                "a/b prio 1 flow any forward vxlan 192.0.2.7 vni 1 mac ff:ff:ff:ff:ff:ff",
                "unicast",
            ),
            (
                "a/b prio 1 flow any forward gre 192.0.2.7 and gre 192.0.2.8",
                "in line",
            ),
            (
                "a/b prio 1 packet to 203.0.113.9 balance",
                "filterType FLOW",
            ),
            ("a/b prio 1 flow any balance", "destination addresses"),
            ("a/b prio 1 flow to 203.0.113.9 balance ue 0", "86400"),
            (
                "a/b prio 1 flow to 203.0.113.9 balance backend b weight 1 up ip 192.0.2.1 \
                 backend a weight 1 up ip 192.0.2.2",
                "order of the names",
            ),
            (
                "a/b prio 1 flow to 203.0.113.9 balance backend a weight 1 sleeping ip 192.0.2.1",
                "`draining`",
            ),
            (
                "a/b prio 1 flow to 203.0.113.9 balance backend a weight 1 up ip 2001:db8::1 nat",
                "other IP version",
            ),
            (
                "a/b prio 1 flow to 203.0.113.9 proto sctp balance backend a weight 1 up ip 192.0.2.1 nat 80",
                "TCP and UDP",
            ),
            (
                "a/b prio 1 flow to 203.0.113.9 proto tcp balance else ip 192.0.2.1 nat",
                "peer",
            ),
            (
                "a/b prio 1 flow proto tcp forward ip 192.0.2.1 nat 0",
                "65535",
            ),
            ("a/b prio 1 flow any drop now", "now"),
            ("a/b prio 1 flow from 10.0.0.1 to ::1 drop", "no packet"),
            ("a/b prio 1 flow from 10.0.0.1 tc 3 drop", "no packet"),
            (
                "a/b prio 1 flow any forward mac 01:00:5e:00:00:01",
                "unicast",
            ),
            ("a/b prio 1 flow any forward ip 224.0.0.1", "host"),
            (
                "a/b prio 1 flow to 2001:db8::1 forward ip 10.0.0.1 nat",
                "other IP version",
            ),
            (
                "a/b prio 1 flow any forward ip 10.0.0.1 nat and ip 10.0.0.2",
                "in line",
            ),
            ("a/b prio 1 flow any duplicate ip 10.0.0.1 nat", "a copy"),
            (
                "a/b prio 1 packet any forward ip 10.0.0.1 nat",
                "filterType FLOW",
            ),
        ] {
            let error = line.parse::<Rule>().unwrap_err();
            assert!(error.reason().contains(word), "{line}: {error}");
        }
    }
}
