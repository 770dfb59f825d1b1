//! What a packet costs in the kernel, by path, flows and rules.

use anyhow::Result;

use crate::{
    Costs, Driver, LIMITS, MISSES, MOBILE_PATHS, Miss, NEW_FLOWS, PATHS, Path, Row, Target,
    packets::upstream,
    row::round,
    rules,
    rules::vip,
    shaped::{self, Shaped},
};

/// Flows up to which paths can follow one another on one host.
const FORGETTABLE: u32 = 1 << 16;

/// Paths that are measured with more flows than that, which takes a minute each. Others wait for the same memory.
const MANY: &[&str] = &[
    "steer-v4-hit",
    "steer-v6-hit",
    "nat-hit",
    "not-ours",
    "gtpu-ul-hit",
    "gtpu-dl-hit",
];

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Flows that take turns, powers of two.
    pub flows: &'static [u32],
    /// Rules in force, where it is about many.
    pub rules: &'static [u32],
    /// The same, where it is about shapes of rules.
    pub shaped: &'static [u32],
    /// Rows of packets, of which the fastest counts.
    pub rounds: u32,
}

/// The references, and paths of which `wanted` holds. `show` sees each row as soon as it is there.
pub fn measure(
    scope: &Scope,
    wanted: &dyn Fn(&str) -> bool,
    show: &mut dyn FnMut(&Row),
) -> Result<Vec<Row>> {
    let mut table = Table {
        scope,
        rows: Vec::new(),
        references: Vec::new(),
        show,
    };
    for (mobile, paths) in [(false, PATHS), (true, MOBILE_PATHS)] {
        let paths: Vec<&Path> = paths.iter().filter(|path| wanted(path.id)).collect();
        table.paths(mobile, &paths)?;
    }
    for miss in MISSES {
        if wanted(miss.id) && scope.rules.contains(&miss.rules) {
            table.miss(miss)?;
        }
    }
    for shaped in shaped::all(scope.shaped) {
        if wanted(&shaped.id()) {
            table.shaped(shaped)?;
        }
    }
    if wanted(MISS_VIP) {
        table.miss_of_vip()?;
    }
    Ok(table.rows)
}

struct Table<'a> {
    scope: &'a Scope,
    rows: Vec<Row>,
    /// What the reference with a cache costs, by flows.
    references: Vec<(u32, u64)>,
    show: &'a mut dyn FnMut(&Row),
}

impl Table<'_> {
    fn paths(&mut self, mobile: bool, paths: &[&Path]) -> Result<()> {
        let (few, many): (Vec<u32>, Vec<u32>) = self
            .scope
            .flows
            .iter()
            .partition(|flows| **flows <= FORGETTABLE);
        let most = few.iter().max().copied().filter(|_| !paths.is_empty());
        if let Some(most) = most {
            let mut driver = Driver::new(mobile, LIMITS.rules, most)?;
            for path in paths {
                for flows in &few {
                    self.path(&mut driver, path, *flows)?;
                }
            }
        }
        for flows in many {
            for path in paths.iter().filter(|path| MANY.contains(&path.id)) {
                let mut driver = Driver::new(mobile, LIMITS.rules, flows)?;
                self.path(&mut driver, path, flows)?;
            }
        }
        Ok(())
    }

    fn path(&mut self, driver: &mut Driver, path: &Path, flows: u32) -> Result<()> {
        driver.prepare(path, flows)?;
        let costs = driver.measure(self.scope.rounds)?;
        if path.id == PATHS[0].id {
            for (id, target) in [
                ("ref-redirect", Target::Redirect),
                (CACHE, Target::Cache),
                ("ref-hash", Target::Lookup),
            ] {
                self.push(Row::cost(id, flows, &costs, target));
            }
        }
        if path.shift != 0 {
            let id = format!("ref-{}", path.id);
            self.push(Row::cost(&id, flows, &costs, Target::Cache));
        }
        self.push(Row::cost(path.id, flows, &costs, Target::Steer));
        Ok(())
    }

    /// What packets of new flows cost under many rules, and packets of known ones.
    fn miss(&mut self, miss: &Miss) -> Result<()> {
        let mut driver = Driver::new(false, miss.rules, NEW_FLOWS)?;
        if let Err(error) = driver.apply(&rules(miss.rules)) {
            self.push(Some(Row::Refused {
                id: miss.id.to_owned(),
                refused: format!("{error:#}"),
            }));
            return Ok(());
        }
        let packet = |flow| miss.packet(flow);
        let costs = driver.measure_miss(&packet, self.scope.rounds / 20 + 1)?;
        self.push_ruled(miss.id, miss.rules, NEW_FLOWS, &costs);
        let flows = 1 << 10;
        let costs = driver.measure_hit(miss, flows, self.scope.rounds / 2)?;
        let hit = miss.id.replace("miss", "hit");
        self.push_ruled(&hit, miss.rules, flows, &costs);
        Ok(())
    }

    /// What packets of new flows to a VIP with many backends cost.
    fn miss_of_vip(&mut self) -> Result<()> {
        let mut driver = Driver::new(false, LIMITS.rules, NEW_FLOWS)?;
        driver.apply(&vip(100))?;
        let costs = driver.measure_miss(&upstream, self.scope.rounds / 20 + 1)?;
        self.push(Row::cost(MISS_VIP, NEW_FLOWS, &costs, Target::Steer));
        Ok(())
    }

    /// What packets of new flows cost under rules of a shape.
    fn shaped(&mut self, shaped: Shaped) -> Result<()> {
        let (rules, packets) = shaped.make()?;
        let mut driver = Driver::new(false, shaped.rules, NEW_FLOWS)?;
        if let Err(error) = driver.apply(&rules) {
            self.push(Some(Row::Refused {
                id: shaped.id(),
                refused: format!("{error:#}"),
            }));
            return Ok(());
        }
        let packet = |flow: u32| packets[flow as usize].clone();
        let costs = driver.measure_miss(&packet, self.scope.rounds / 20 + 1)?;
        self.push_ruled(&shaped.id(), shaped.rules, NEW_FLOWS, &costs);
        Ok(())
    }

    fn push_ruled(&mut self, id: &str, count: u32, flows: u32, costs: &Costs) {
        let mut row = Row::cost(id, flows, costs, Target::Steer);
        if let Some(Row::Cost { rules, .. }) = &mut row {
            *rules = Some(count);
        }
        self.push(row);
    }

    fn push(&mut self, row: Option<Row>) {
        let Some(mut row) = row else { return };
        if let Row::Cost {
            id,
            flows,
            net_ns,
            ratio,
            ..
        } = &mut row
        {
            if id == CACHE {
                self.references.push((*flows, (*net_ns).max(1)));
            }
            let mut references = self.references.iter();
            if let Some((_, reference)) = references.find(|reference| reference.0 == *flows) {
                ratio.get_or_insert_with(|| round(*net_ns as f64 / *reference as f64));
            }
        }
        (self.show)(&row);
        self.rows.push(row);
    }
}

/// The first packets of flows to a VIP.
const MISS_VIP: &str = "vip-miss";

/// The reference that ratios are to.
const CACHE: &str = "ref-cache";
