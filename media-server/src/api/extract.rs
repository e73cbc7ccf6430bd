//! What handlers take from an address. Nothing here refuses: what is wrong with it the handler says, in the words of
//! its surface, and not before it has looked at the token.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use std::convert::Infallible;

/// Names in the path. Those that are no UTF-8 are empty, which names nothing.
pub(super) struct Names<T>(pub(super) T);

impl<S, T> FromRequestParts<S> for Names<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Default + Send,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let names = Path::from_request_parts(parts, state).await;
        Ok(Names(names.map(|Path(names)| names).unwrap_or_default()))
    }
}

/// Names and values of the query.
#[derive(Default)]
pub(super) struct Pairs(Vec<(String, String)>);

impl Pairs {
    /// Of several values of a name the first counts, as it did for the service before.
    pub(super) fn first(&self, name: &str) -> Option<&str> {
        let mut named = self.0.iter().filter(|(known, _)| known == name);
        named.next().map(|(_, value)| &**value)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Pairs {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let pairs = Query::try_from_uri(&parts.uri);
        Ok(Pairs(pairs.map(|Query(pairs)| pairs).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    #[tokio::test]
    async fn a_query_is_never_wrong_and_the_first_of_several_values_counts() {
        let request = Request::get("/?a=1&b=%ff&a=2&=&c&%").body(());
        let (mut parts, ()) = request.expect("right").into_parts();
        let Ok(pairs) = Pairs::from_request_parts(&mut parts, &()).await;
        assert_eq!(pairs.first("a"), Some("1"));
        assert_eq!(pairs.first("b"), Some("\u{fffd}"));
        assert_eq!(pairs.first("c"), Some(""));
        assert_eq!(pairs.first("d"), None);
    }
}
