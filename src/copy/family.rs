//! In which order tables are copied, and how: those whose rows follow each
//! other by foreign keys without events need care.

use std::collections::{BTreeMap, BTreeSet};

use crate::follow::batch::TableName;
use crate::follow::tables::{Meaning, Tables};

use super::Part;

/// What foreign keys say about the tables of a copy.
#[derive(Default)]
pub(super) struct Family {
    /// Copied as a whole.
    whole: BTreeSet<TableName>,
    /// Parents and children that follow them unseen.
    children: BTreeMap<TableName, BTreeSet<TableName>>,
    related: BTreeSet<TableName>,
}

impl Family {
    pub(super) fn of(names: &[TableName], tables: &dyn Tables) -> Family {
        let mut family = Family::default();
        for name in names {
            let followed = match tables.meaning(name) {
                Meaning::Follow(followed) => followed,
                Meaning::Keyless(_) => {
                    family.whole.insert(name.clone());
                    continue;
                }
                _ => continue,
            };
            for child in followed.shape.children.iter().filter(|_| followed.cascades) {
                let child = TableName {
                    schema: child.schema.clone(),
                    table: child.table.clone(),
                };
                family.related.extend([name.clone(), child.clone()]);
                let children = family.children.entry(name.clone()).or_default();
                children.insert(child);
            }
        }
        // Rows that delete each other have no order to be copied in.
        for name in names {
            if family.below(name).contains(name) {
                family.whole.insert(name.clone());
            }
        }
        family
    }

    /// All tables whose rows follow those of `name`.
    pub(super) fn below(&self, name: &TableName) -> BTreeSet<TableName> {
        let mut found = BTreeSet::new();
        let mut next = vec![name.clone()];
        while let Some(name) = next.pop() {
            for child in self.children.get(&name).into_iter().flatten() {
                if found.insert(child.clone()) {
                    next.push(child.clone());
                }
            }
        }
        found
    }

    /// The table is copied out of one snapshot.
    pub(super) fn whole(&self, name: &TableName) -> bool {
        self.whole.contains(name)
    }

    /// The table's rows must not be written ahead of their place.
    pub(super) fn related(&self, name: &TableName) -> bool {
        self.related.contains(name)
    }

    /// Parents before children:
    /// 1. A child is copied before its parent.
    /// 2. The parent is deleted; it is not on the other side, so nothing there
    ///    takes the child with it.
    pub(super) fn levels(&self, parts: Vec<Part>) -> Vec<Vec<Part>> {
        let names: BTreeSet<&TableName> = parts.iter().map(|p| &p.name).collect();
        let below: BTreeMap<&TableName, BTreeSet<TableName>> =
            names.iter().map(|n| (*n, self.below(n))).collect();
        // How many tables are above it, circles left out.
        let level = |name: &TableName| {
            let mut above = below.iter().filter(|(parent, under)| {
                under.contains(name) && !below.get(name).is_some_and(|u| u.contains(**parent))
            });
            above.by_ref().count()
        };
        let mut levels: BTreeMap<usize, Vec<Part>> = BTreeMap::new();
        for part in &parts {
            levels
                .entry(level(&part.name))
                .or_default()
                .push(part.clone());
        }
        levels.into_values().collect()
    }
}
