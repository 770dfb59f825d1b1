//! Everything that was measured, for programs and for people.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::{Machine, Row, figures};

/// All results of a machine.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// What was measured on it.
    pub results: Vec<Row>,
}

impl Report {
    /// Of this machine.
    pub fn new(results: Vec<Row>) -> Result<Self> {
        Ok(Self {
            machine: Machine::this()?,
            results,
        })
    }

    /// For programs.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Writes everything into a directory, in files that are named by the machine.
    pub fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)?;
        let slug = self.machine.slug();
        let write = |name: String, text: String| {
            let file = directory.join(name);
            fs::write(&file, text).with_context(|| file.display().to_string())
        };
        write(format!("{slug}.json"), self.json()?)?;
        write(format!("{slug}.md"), self.markdown(&slug))?;
        for (name, svg) in figures::all(&self.results) {
            write(format!("{slug}-{name}.svg"), svg)?;
        }
        Ok(())
    }

    fn markdown(&self, slug: &str) -> String {
        let mut text = format!(
            "# {}\n\nMade by `cargo xtask bench`; [README](../README.md) tells how to read it. \
             Everything is in [{slug}.json]({slug}.json) too.\n\n",
            self.machine.line()
        );
        for (fault, state) in &self.machine.mitigations {
            let _ = writeln!(text, "* {fault}: {state}");
        }
        for (name, title, heading) in SECTIONS {
            let _ = write!(
                text,
                "\n## {title}\n\n![{title}]({slug}-{name}.svg)\n\n{heading}\n"
            );
            let rows = self.results.iter().filter(|row| row.section() == *name);
            for row in rows {
                let _ = writeln!(text, "| {} |", row.cells().join(" | "));
            }
        }
        text
    }
}

/// Names of charts, titles, and heads of tables.
const SECTIONS: &[(&str, &str, &str)] = &[
    (
        "flows",
        "Known flows",
        "| path | flows | ns | empty | net | times ref-cache |\n|---|---:|---:|---:|---:|---:|",
    ),
    (
        "rules",
        "Rules",
        "| path | flows | ns | empty | net | times ref-cache |\n|---|---:|---:|---:|---:|---:|",
    ),
    (
        "veth",
        "Through veths",
        "| way | Mpps | times bare redirect |\n|---|---:|---:|",
    ),
    (
        "latency",
        "Latency",
        "| way | 50 % | 99 % | 99.9 % ns | 99 %, times bare redirect |\n|---|---:|---:|---:|---:|",
    ),
    (
        "apply",
        "Changes of rules",
        "| what | median us | 99 % us |\n|---|---:|---:|",
    ),
];
