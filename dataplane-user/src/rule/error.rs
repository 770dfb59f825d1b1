/// A text that is not what it should be, with the reason in words for the person who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: {why}")]
pub struct ParseError {
    what: &'static str,
    text: String,
    why: String,
}

impl ParseError {
    pub(super) fn new(what: &'static str, text: &str, why: impl Into<String>) -> Self {
        Self {
            what,
            text: text.to_owned(),
            why: why.into(),
        }
    }

    /// The reason alone, without the text it is about.
    pub fn reason(&self) -> &str {
        &self.why
    }
}
