//! Every query of every panel about a MediaService has data, unless the catalogue says what it takes.

use std::collections::BTreeSet;

use catalogue::dashboard::{EMPTY_WITHOUT, dashboards};
use tests::scraping::{Asked, Scraping, queries};

use crate::scraped::CAM;

pub async fn have_data(scraped: &Scraping) {
    let variables = [
        ("$namespace", CAM.namespace),
        ("$service", CAM.service),
        ("$pod", ".*"),
    ];
    let dashboards = dashboards(&CAM);
    let all = dashboards
        .iter()
        .flat_map(|dashboard| queries(dashboard, &variables));
    let all: Vec<Asked> = all.collect();
    assert!(all.len() > 100, "{}", all.len());
    let needs = |asked: &&Asked| {
        let mut families = EMPTY_WITHOUT.iter().map(|(family, _)| *family);
        families.find(|family| asked.query.contains(family))
    };
    let mut stale = BTreeSet::new();
    for asked in &all {
        let Some(family) = needs(&asked) else {
            continue;
        };
        let values = scraped.values(&asked.query).await;
        if !values.expect("it is answered").is_empty() {
            stale.insert(family);
        }
    }
    let full: Vec<&Asked> = all.iter().filter(|asked| needs(asked).is_none()).collect();
    scraped.have_data(&full).await;
    assert!(stale.is_empty(), "they have data: {stale:?}");
}
