//! Everything that was measured, for programs and for people.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{Machine, Row, figures};

/// All results of a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
        for (name, text) in self.files()? {
            let file = directory.join(name);
            fs::write(&file, text).with_context(|| file.display().to_string())?;
        }
        Ok(())
    }

    /// Names and contents of all files.
    fn files(&self) -> Result<Vec<(String, String)>> {
        let slug = self.machine.slug();
        let charts = figures::all(&self.results);
        let charts = charts.map(|(name, svg)| (format!("{slug}-{name}.svg"), svg));
        let texts = [
            (format!("{slug}.json"), self.json()?),
            (format!("{slug}.md"), self.markdown(&slug)),
        ];
        Ok(texts.into_iter().chain(charts).collect())
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
        "| path | flows | ns | empty | net | times its reference |\n|---|---:|---:|---:|---:|---:|",
    ),
    (
        "rules",
        "Rules",
        "| path | flows | ns | empty | net | times its reference |\n|---|---:|---:|---:|---:|---:|",
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

#[cfg(test)]
mod tests {
    use super::*;

    /// With `EDGESTEER_BLESS=1` they are made anew.
    #[test]
    fn tables_and_charts_are_what_the_rows_make() {
        let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/results"));
        let mut reports = 0;
        for entry in fs::read_dir(directory).unwrap() {
            let file = entry.unwrap().path();
            if file.extension().is_none_or(|it| it != "json") {
                continue;
            }
            let report: Report = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            if std::env::var_os("EDGESTEER_BLESS").is_some() {
                report.write(directory).unwrap();
            }
            for (name, text) in report.files().unwrap() {
                let there = fs::read_to_string(directory.join(&name)).unwrap();
                assert!(there == text, "{name}: EDGESTEER_BLESS=1 makes it anew");
            }
            reports += 1;
        }
        assert!(reports > 0);
    }
}
