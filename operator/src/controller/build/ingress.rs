//! The Ingress, if the spec asks for one.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule,
    IngressServiceBackend, IngressSpec, IngressTLS, ServiceBackendPort,
};

use super::meta;
use crate::controller::validate::ValidService;

/// Always with TLS: without a Secret of its own the controller serves its default certificate.
pub fn build_ingress(service: &ValidService) -> Option<Ingress> {
    let asked = service.spec.signalling.ingress.as_ref()?;
    let mut metadata = meta::object(service, &service.name);
    if !asked.annotations.is_empty() {
        metadata.annotations = Some(asked.annotations.clone());
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
