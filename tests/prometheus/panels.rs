//! Every query of every panel about a MediaService has data, unless the catalogue says what it takes.

use std::collections::BTreeSet;

use catalogue::dashboard::{EMPTY_WITHOUT, dashboards};
use serde_json::Value;
use tests::wait_for;

use crate::scraped::{CAM, PATIENCE, Scraped};

/// Dashboard, title and query, as Grafana would ask it: the interval is a minute.
fn queries() -> Vec<(&'static str, String, String)> {
    let mut all = Vec::new();
    for dashboard in dashboards(&CAM) {
        for panel in list(&dashboard.json["panels"]) {
            for target in list(&panel["targets"]) {
                if target["datasource"]["type"] != "prometheus" {
                    continue;
                }
                let query = target["expr"].as_str().expect("an expression");
                let query = query
                    .replace("$__rate_interval", "1m")
                    .replace("$namespace", CAM.namespace)
                    .replace("$service", CAM.service)
                    .replace("$pod", ".*");
                let title = panel["title"].as_str().expect("a title").to_owned();
                all.push((dashboard.id, title, query));
            }
        }
    }
    all
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub async fn have_data(scraped: &Scraped) {
    let queries = queries();
    assert!(queries.len() > 100, "{}", queries.len());
    let (mut empty, mut stale) = (Vec::new(), BTreeSet::new());
    for (dashboard, title, query) in &queries {
        let needs = EMPTY_WITHOUT
            .iter()
            .find(|(family, _)| query.contains(family));
        if let Some((family, _)) = needs {
            if !scraped
                .values(query)
                .await
                .expect("it is answered")
                .is_empty()
            {
                stale.insert(*family);
            }
            continue;
        }
        let asked = format!("{dashboard}: {title}: {query}");
        if scraped.values(query).await.expect(&asked).is_empty() {
            empty.push((asked, query));
        }
    }
    for (asked, query) in &empty {
        wait_for(&format!("data for {asked}"), PATIENCE, || async {
            match scraped.values(query).await?.is_empty() {
                true => Err(anyhow::anyhow!(
                    "nothing; of {} that had none at first",
                    empty.len()
                )),
                false => Ok(()),
            }
        })
        .await;
    }
    assert!(stale.is_empty(), "they have data: {stale:?}");
}
