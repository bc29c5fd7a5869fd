//! Who asks.

use std::fmt;

/// What a user logs in with. It belongs to the one registry that it was given for.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// A refresh token that the registry's token service gave at an earlier login; goes before the password.
    pub identity_token: Option<String>,
    /// A bearer token that is sent as it is.
    pub registry_token: Option<String>,
}

impl Credentials {
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: username.into(), password: password.into(), ..Self::default() }
    }

    /// Whether there is nothing in them; the request is anonymous then.
    pub fn is_empty(&self) -> bool {
        self.username.is_empty() && self.password.is_empty() && !self.has_tokens()
    }

    fn has_tokens(&self) -> bool {
        [&self.identity_token, &self.registry_token].into_iter().any(|t| t.as_deref().is_some_and(|t| !t.is_empty()))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the secrets: debug output ends in logs.
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_has_no_secrets() {
        let mut credentials = Credentials::new("ann", "hunter2");
        credentials.identity_token = Some("hunter3".into());
        credentials.registry_token = Some("hunter4".into());
        let text = format!("{credentials:?}");
        assert!(text.contains("ann") && !text.contains("hunter"), "{text}");
    }
}
