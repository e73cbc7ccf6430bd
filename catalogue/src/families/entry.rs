//! Short ways to write an entry of the table.

use super::{Family, Kind, Scope, Unit};

pub(super) const fn family(
    name: &'static str,
    kind: Kind,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        name,
        kind,
        unit,
        help,
        labels,
        buckets: &[],
        scope: Scope::Process,
    }
}

pub(super) const fn histogram(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    buckets: &'static [f64],
    help: &'static str,
) -> Family {
    Family {
        buckets,
        ..family(name, Kind::Histogram, unit, labels, help)
    }
}

pub(super) const fn of_device(family: Family) -> Family {
    Family {
        scope: Scope::Device,
        ..family
    }
}

pub(super) const fn of_session(family: Family) -> Family {
    Family {
        scope: Scope::Session,
        ..family
    }
}
