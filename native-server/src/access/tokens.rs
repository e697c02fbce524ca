//! Short-lived tokens for browsers: JSON Web Tokens (RFC 7519), signed with HMAC-SHA-256.
//!
//! A page must not hold a key. The shop's own server mints a token with its key and gives it to the page; it says what it
//! opens, for which origin and until when, and needs no table here: any replica with the same secret can read it.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Scope;
use crate::error::ApiError;

/// Who signs.
const ISSUER: &str = "okyeame";
/// The shortest secret: as long as what HMAC-SHA-256 gives (RFC 7518, 3.2).
pub(crate) const MIN_SECRET_BYTES: usize = 32;
/// The longest that a token may live, seconds.
pub(crate) const MAX_LIFE_S: u64 = 24 * 3600;

/// What tokens are signed with; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret(Vec<u8>);

impl TokenSecret {
    /// A secret of at least 32 bytes; blanks around it do not count.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.trim_ascii();
        (bytes.len() >= MIN_SECRET_BYTES).then(|| Self(bytes.to_vec()))
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    iss: String,
    /// The name of the key that it was minted with.
    pub(crate) sub: String,
    pub(crate) scopes: Vec<Scope>,
    /// The one page that may use it; absent, whoever has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<String>,
    /// Seconds since 1970.
    iat: u64,
    pub(crate) exp: u64,
    pub(crate) jti: String,
}

/// Mints tokens and reads them.
pub(crate) struct Tokens {
    sign: EncodingKey,
    verify: DecodingKey,
    validation: Validation,
}

impl Tokens {
    /// Without a secret, a random one: tokens then end with the process, and no other replica knows them.
    pub(crate) fn new(secret: Option<&TokenSecret>) -> Result<Self, getrandom::Error> {
        let mut random = [0; MIN_SECRET_BYTES];
        getrandom::fill(&mut random)?;
        let secret = secret.map_or(&random[..], |secret| &secret.0);
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        Ok(Self { sign: EncodingKey::from_secret(secret), verify: DecodingKey::from_secret(secret), validation })
    }

    /// A token, and when it ends (seconds since 1970).
    pub(crate) fn mint(
        &self,
        key: String,
        scopes: Vec<Scope>,
        origin: Option<String>,
        life: Duration,
    ) -> Result<(String, u64), ApiError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let exp = now.saturating_add(life.as_secs());
        let claims =
            Claims { iss: ISSUER.to_owned(), sub: key, scopes, origin, iat: now, exp, jti: Uuid::new_v4().to_string() };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.sign)
            .map_err(|error| ApiError::Internal { cause: error.to_string() })?;
        Ok((token, exp))
    }

    /// What a token says, if it was signed here and still lives.
    pub(crate) fn read(&self, token: &str) -> Result<Claims, ApiError> {
        jsonwebtoken::decode::<Claims>(token, &self.verify, &self.validation).map(|token| token.claims).map_err(
            |error| match error.kind() {
                ErrorKind::ExpiredSignature => ApiError::TokenExpired,
                _ => ApiError::UnknownKey,
            },
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> TokenSecret {
        TokenSecret::new(&[byte; 32]).unwrap()
    }

    fn claims(exp: u64, iss: &str) -> Claims {
        let (sub, scopes, jti) = ("shop".to_owned(), vec![Scope::Intent], "1".to_owned());
        Claims { iss: iss.to_owned(), sub, scopes, origin: None, iat: 0, exp, jti }
    }

    #[test]
    fn a_replica_with_the_same_secret_reads_a_token() {
        let (a, b) = (Tokens::new(Some(&secret(b'a'))).unwrap(), Tokens::new(Some(&secret(b'a'))).unwrap());
        let origin = Some("https://shop.example".to_owned());
        let life = Duration::from_secs(60);
        let (token, exp) = a.mint("shop".to_owned(), vec![Scope::Intent], origin.clone(), life).unwrap();
        let read = b.read(&token).unwrap();
        assert_eq!(
            (read.sub.as_str(), &read.scopes[..], &read.origin, read.exp),
            ("shop", &[Scope::Intent][..], &origin, exp)
        );
    }

    #[test]
    fn what_was_not_signed_here_is_nothing() {
        let ours = Tokens::new(Some(&secret(b'a'))).unwrap();
        let (good, _) = ours.mint("shop".to_owned(), vec![Scope::Intent], None, Duration::from_secs(60)).unwrap();
        let theirs = Tokens::new(Some(&secret(b'b'))).unwrap();
        assert!(matches!(theirs.read(&good), Err(ApiError::UnknownKey)));
        assert!(matches!(Tokens::new(None).unwrap().read(&good), Err(ApiError::UnknownKey)));

        let unsigned = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJva3llYW1lIiwic3ViIjoic2hvcCIsImV4cCI6OTk5OTk5OTk5OX0.";
        let mut changed = good.clone().into_bytes();
        let middle = good.find('.').unwrap() + 20;
        changed[middle] = if changed[middle] == b'A' { b'B' } else { b'A' };
        let other = |header: Header, claims: &Claims| jsonwebtoken::encode(&header, claims, &ours.sign).unwrap();
        for token in [
            "",
            "..",
            unsigned,
            &String::from_utf8(changed).unwrap(),
            &other(Header::new(Algorithm::HS512), &claims(u64::MAX / 2, ISSUER)),
            &other(Header::new(Algorithm::HS256), &claims(9_999_999_999, "somebody")),
        ] {
            assert!(matches!(ours.read(token), Err(ApiError::UnknownKey)), "{token}");
        }
        let late = other(Header::new(Algorithm::HS256), &claims(1, ISSUER));
        assert!(matches!(ours.read(&late), Err(ApiError::TokenExpired)));
    }

    #[test]
    fn a_secret_is_long_and_is_not_shown() {
        assert!(TokenSecret::new(b"  too short \n").is_none());
        assert!(!format!("{:?}", secret(b'a')).contains('a'));
    }
}
