//! The Ingress, if the spec asks for one.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule,
    IngressServiceBackend, IngressSpec, IngressTLS, ServiceBackendPort,
};

use super::meta;
use crate::controller::validate::ValidService;

/// A part of a class's name, and what its controller reads of us. Event streams are quiet for long; both
/// close a connection after a minute of silence by default.
const STREAMS: &[(&str, &str, &str)] = &[
    (
        "nginx",
        "nginx.ingress.kubernetes.io/proxy-read-timeout",
        "3600",
    ),
    (
        "nginx",
        "nginx.ingress.kubernetes.io/proxy-send-timeout",
        "3600",
    ),
    ("haproxy", "haproxy.org/timeout-server", "3600s"),
    ("haproxy", "haproxy.org/timeout-tunnel", "3600s"),
];

/// Always with TLS: without a Secret of its own the controller serves its default certificate.
pub fn build_ingress(service: &ValidService) -> Option<Ingress> {
    let asked = service.spec.signalling.ingress.as_ref()?;
    let mut metadata = meta::object(service, &service.name);
    let mut annotations: BTreeMap<String, String> = STREAMS
        .iter()
        .filter(|(class, _, _)| asked.class_name.contains(class))
        .map(|(_, key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    annotations.extend(asked.annotations.clone());
    if !annotations.is_empty() {
        metadata.annotations = Some(annotations);
    }
    let backend = IngressBackend {
        service: Some(IngressServiceBackend {
            name: service.name.clone(),
            port: Some(ServiceBackendPort {
                name: Some("http".into()),
                number: None,
            }),
        }),
        resource: None,
    };
    Some(Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: non_empty(&asked.class_name),
            tls: Some(vec![IngressTLS {
                hosts: Some(vec![asked.host.clone()]),
                secret_name: non_empty(&asked.tls_secret_name),
            }]),
            rules: Some(vec![IngressRule {
                host: Some(asked.host.clone()),
                http: Some(HTTPIngressRuleValue {
                    paths: vec![HTTPIngressPath {
                        path: Some("/".into()),
                        path_type: "Prefix".into(),
                        backend,
                    }],
                }),
            }]),
            ..IngressSpec::default()
        }),
        ..Ingress::default()
    })
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
