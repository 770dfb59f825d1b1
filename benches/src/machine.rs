//! What the figures are of.

use std::{collections::BTreeMap, fs};

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The machine, without what would tell whose it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's model.
    pub cpu: String,
    /// How many of them.
    pub cpus: usize,
    /// Version of the kernel.
    pub kernel: String,
    /// What the kernel does against faults of the processor, by fault, of those that it has.
    pub mitigations: BTreeMap<String, String>,
}

impl Machine {
    /// This one.
    pub fn this() -> Result<Self> {
        let info = fs::read_to_string("/proc/cpuinfo")?;
        let models = info.lines().filter_map(|line| {
            let (_, model) = line.strip_prefix("model name")?.split_once(": ")?;
            Some(model)
        });
        Ok(Self {
            cpu: models.clone().next().unwrap_or("unknown").to_owned(),
            cpus: models.count(),
            kernel: version(&fs::read_to_string("/proc/sys/kernel/osrelease")?).to_owned(),
            mitigations: mitigations()?,
        })
    }

    /// A name for files: processor and kernel.
    pub fn slug(&self) -> String {
        let kernel: Vec<&str> = self.kernel.split('.').take(2).collect();
        let text = format!("{} linux {}", self.cpu, kernel.join("."));
        let keep = |c: char| c.is_ascii_alphanumeric() || c == '.';
        let words: Vec<&str> = text
            .split(|c| !keep(c))
            .filter(|word| !word.is_empty())
            .collect();
        words.join("-").to_lowercase()
    }

    /// In one line.
    pub fn line(&self) -> String {
        format!("{} × {}, Linux {}", self.cpus, self.cpu, self.kernel)
    }
}

/// The release without what a builder calls it.
fn version(release: &str) -> &str {
    let end = release.find(|c: char| !c.is_ascii_digit() && c != '.');
    end.map_or(release, |end| &release[..end])
}

fn mitigations() -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/sys/devices/system/cpu/vulnerabilities")? {
        let entry = entry?;
        let text = fs::read_to_string(entry.path())?;
        if text.trim() != "Not affected" {
            let fault = entry.file_name().to_string_lossy().into_owned();
            all.insert(fault, text.trim().to_owned());
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_named_by_processor_and_kernel_only() {
        let machine = Machine {
            cpu: "Intel(R) Xeon(R) CPU @ 2.20GHz".to_owned(),
            cpus: 2,
            kernel: version("6.18.44-somebody-s-own\n").to_owned(),
            mitigations: BTreeMap::new(),
        };
        assert_eq!(machine.slug(), "intel-r-xeon-r-cpu-2.20ghz-linux-6.18");
        assert_eq!(
            machine.line(),
            "2 × Intel(R) Xeon(R) CPU @ 2.20GHz, Linux 6.18.44"
        );
    }

    #[test]
    fn this_machine_can_be_named() {
        let machine = Machine::this().unwrap();
        assert!(machine.cpus > 0, "{machine:?}");
        assert!(machine.kernel.split('.').count() >= 2, "{machine:?}");
    }
}
