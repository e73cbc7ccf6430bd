//! The Certificate of cert-manager that fills the Ingress's Secret, if the spec names an issuer.

use kube::api::DynamicObject;
use serde_json::json;

use super::meta;
use crate::capabilities;
use crate::controller::validate::ValidService;

pub fn build_certificate(service: &ValidService) -> Option<DynamicObject> {
    let signalling = &service.spec.signalling;
    let issuer = signalling.certificate_issuer_ref.as_ref()?;
    let ingress = signalling.ingress.as_ref()?;
    let spec = json!({
        "secretName": ingress.tls_secret_name,
        "dnsNames": [ingress.host],
        "issuerRef": {"group": "cert-manager.io", "kind": issuer.kind.as_str(), "name": issuer.name},
    });
    let metadata = meta::object(service, name(service));
    Some(meta::dynamic(&capabilities::certificate(), metadata, spec))
}

pub fn name(service: &ValidService) -> String {
    format!("{}-tls", service.name)
}
