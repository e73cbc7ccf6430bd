//! Typed panels: a title, a unit, and queries with legends; places on the grid follow from the order.

use serde_json::{Value, json};

/// Grafana's grid is 24 columns wide.
const COLUMNS: u32 = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One number, now.
    Stat,
    /// Lines over time.
    Lines,
    /// A bar for each series, now.
    Bars,
    /// Numbers of log lines over time.
    LogCounts,
    /// Log lines.
    LogLines,
    /// A list of traces.
    Traces,
}

impl Kind {
    /// What Grafana calls the panel.
    fn as_str(self) -> &'static str {
        match self {
            Kind::Stat => "stat",
            Kind::Lines | Kind::LogCounts => "timeseries",
            Kind::Bars => "bargauge",
            Kind::LogLines => "logs",
            Kind::Traces => "table",
        }
    }

    /// Kind of the data source, and the variable that names one.
    fn source(self) -> (&'static str, &'static str) {
        match self {
            Kind::Stat | Kind::Lines | Kind::Bars => ("prometheus", "${datasource}"),
            Kind::LogCounts | Kind::LogLines => ("loki", "${loki_datasource}"),
            Kind::Traces => ("tempo", "${tempo_datasource}"),
        }
    }

    /// Width and height on the grid.
    fn size(self) -> (u32, u32) {
        match self {
            Kind::Stat => (4, 4),
            Kind::Lines | Kind::LogCounts => (8, 8),
            Kind::Bars => (8, 12),
            Kind::LogLines => (16, 8),
            Kind::Traces => (8, 8),
        }
    }

    fn options(self) -> Value {
        let reduced = json!({"calcs": ["lastNotNull"], "fields": "", "values": false});
        match self {
            Kind::Stat => json!({
                "reduceOptions": reduced,
                "colorMode": "value", "graphMode": "area", "textMode": "auto",
            }),
            Kind::Lines | Kind::LogCounts => json!({
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            Kind::Bars => json!({
                "reduceOptions": reduced,
                "displayMode": "basic", "orientation": "horizontal", "showUnfilled": true,
            }),
            Kind::LogLines => json!({
                "showTime": true, "wrapLogMessage": true, "sortOrder": "Descending", "enableLogDetails": true,
            }),
            Kind::Traces => json!({}),
        }
    }

    fn target(self, query: &Query, selection: &str) -> Value {
        let expr = query.expr.replace("$S", selection);
        let is_range = self == Kind::Lines;
        match self {
            Kind::Stat | Kind::Lines | Kind::Bars => json!({
                "expr": expr, "legendFormat": query.legend, "instant": !is_range, "range": is_range,
            }),
            Kind::LogCounts | Kind::LogLines => json!({
                "expr": expr, "legendFormat": query.legend, "queryType": "range",
            }),
            Kind::Traces => json!({
                "query": expr, "queryType": "traceql", "tableType": "traces", "limit": 20,
            }),
        }
    }
}

/// Units as Grafana names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Count,
    PerSecond,
    PacketsPerSecond,
    BitsPerSecond,
    Bytes,
    Ratio,
    Seconds,
    Milliseconds,
    FramesPerSecond,
}

impl Unit {
    fn as_str(self) -> &'static str {
        match self {
            Unit::Count => "short",
            Unit::PerSecond => "ops",
            Unit::PacketsPerSecond => "pps",
            Unit::BitsPerSecond => "bps",
            Unit::Bytes => "bytes",
            Unit::Ratio => "percentunit",
            Unit::Seconds => "s",
            Unit::Milliseconds => "ms",
            Unit::FramesPerSecond => "fps",
        }
    }
}

/// A query and the name of its lines. `$S` stands for the dashboard's selection.
#[derive(Debug, Clone, Copy)]
pub struct Query {
    pub expr: &'static str,
    pub legend: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub struct Panel {
    pub title: &'static str,
    /// What a reader should take from it; shown behind the panel's `i`.
    pub description: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub queries: &'static [Query],
    /// From here the value is shown red, or among lines above a dashed one. None: there is no wrong value.
    pub red_from: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub title: &'static str,
    pub panels: &'static [Panel],
}

/// What a dashboard says of itself.
pub struct Head {
    pub uid: String,
    pub title: String,
    pub description: &'static str,
    pub variables: Value,
}

/// A dashboard as Grafana imports it. `selection` is what `$S` of the queries stands for.
pub fn model(head: Head, rows: &[Row], selection: &str) -> Value {
    json!({
        "uid": head.uid,
        "title": head.title,
        "description": head.description,
        "tags": ["mediaservice"],
        "schemaVersion": 39,
        "version": 1,
        // Grafana's sidecar would write over what somebody changes here.
        "editable": false,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": head.variables},
        "annotations": {"list": []},
        "panels": layout(rows, selection),
    })
}

fn layout(rows: &[Row], selection: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for row in rows {
        all.push(json!({
            "type": "row", "title": row.title, "collapsed": false, "panels": [],
            "gridPos": {"w": COLUMNS, "h": 1},
        }));
        all.extend(row.panels.iter().map(|panel| panel.model(selection)));
    }
    place(&mut all);
    all
}

/// Places rows and panels on the grid, left to right, and numbers them.
pub fn place(panels: &mut [Value]) {
    let (mut x, mut y, mut height) = (0, 0, 0);
    for (id, panel) in (1..).zip(panels) {
        let size = |side: &str| panel["gridPos"][side].as_u64().unwrap_or_default();
        let (w, h) = (size("w"), size("h"));
        if x + w > u64::from(COLUMNS) {
            (x, y, height) = (0, y + height, 0);
        }
        panel["id"] = id.into();
        panel["gridPos"]["x"] = x.into();
        panel["gridPos"]["y"] = y.into();
        height = height.max(h);
        x += w;
    }
}

impl Panel {
    fn model(&self, selection: &str) -> Value {
        let (w, h) = self.kind.size();
        let (source, variable) = self.kind.source();
        let datasource = json!({"type": source, "uid": variable});
        let targets: Vec<Value> = self
            .queries
            .iter()
            .zip('A'..)
            .map(|(query, letter)| {
                let mut target = self.kind.target(query, selection);
                target["refId"] = letter.to_string().into();
                target["datasource"] = datasource.clone();
                target
            })
            .collect();
        let mut steps = vec![json!({"color": "green", "value": null})];
        if let Some(value) = self.red_from {
            steps.push(json!({"color": "red", "value": value}));
        }
        let mut defaults = json!({
            "unit": self.unit.as_str(), "min": 0,
            "thresholds": {"mode": "absolute", "steps": steps},
        });
        // Without it Grafana colours a number or a bar by its threshold, and shows none among lines.
        if self.kind == Kind::Lines && self.red_from.is_some() {
            defaults["custom"] = json!({"thresholdsStyle": {"mode": "dashed"}});
        }
        json!({
            "type": self.kind.as_str(),
            "title": self.title,
            "description": self.description,
            "datasource": datasource,
            "gridPos": {"w": w, "h": h},
            "fieldConfig": {
                "defaults": defaults,
                "overrides": [],
            },
            "options": self.kind.options(),
            "targets": targets,
        })
    }
}
