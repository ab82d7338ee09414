//! What a process would find if it entered its phase now.

use std::fmt;

use lockcore::{BackendError, HolderId};

use super::entrance::unseen;
use super::keys::{Desk, Key};
use super::phase::Phase;
use super::status::{Status, list, text};

/// What speaks against entering a phase, as seen from this machine with these settings.
#[derive(Clone, Debug, Default)]
pub struct Check {
    objections: Vec<String>,
    status: Status,
    /// What the stores' tokens are apart by.
    apart: Option<i128>,
}

impl Check {
    /// Looks into both stores, and takes and releases a key of the switch's own in each.
    pub(super) async fn of(
        phase: Phase,
        desks: &[Desk; 2],
        settings: &str,
        expected: &[(Phase, usize)],
    ) -> Self {
        let [old, new] = desks;
        let mut check = Self::default();
        let (in_old, in_new) = tokio::join!(probe(old), probe(new));
        if let (Ok(Some(old)), Ok(Some(new))) = (&in_old, &in_new) {
            check.apart = Some(i128::from(*new) - i128::from(*old));
        }
        let (seen_old, seen_new) = tokio::join!(old.shows_all(), new.shows_all());
        for (desk, probed, seen) in [(old, in_old, seen_old), (new, in_new, seen_new)] {
            if let Err(error) = probed {
                check.objections.push(format!("{} cannot be used: {error}", desk.name));
            } else if let Err(error @ BackendError::Rejected(_)) = seen {
                check.objections.push(unseen(desk.name, &error).to_string());
            }
        }
        match Status::of(&*old.store, &*new.store).await {
            Ok(status) => check.status = status,
            Err(error) => check.objections.push(error.to_string()),
        }
        check.objections.extend(check.status.objections(phase, expected));
        let ours = settings.split(' ').next();
        for (phase, stands) in &check.status.stands {
            if stands.settings.split(' ').next() != ours {
                let theirs = &stands.settings;
                let differ = format!("phase {phase} has the settings {theirs}, not {settings}");
                check.objections.push(differ);
            }
        }
        check
    }

    /// Why not to enter now: empty, and it can be entered.
    #[must_use]
    pub fn objections(&self) -> &[String] {
        &self.objections
    }

    /// What the stores show.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// All of it as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        format!(
            r#"{{"objections":{},"tokens_apart":{},"status":{}}}"#,
            list(self.objections.iter().map(|why| text(why))),
            self.apart.map_or("null".to_owned(), |apart| apart.to_string()),
            self.status.to_json()
        )
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(apart) = self.apart {
            writeln!(f, "new tokens of the new store are {apart} above the old store's")?;
        }
        for why in &self.objections {
            writeln!(f, "no: {why}")?;
        }
        Ok(())
    }
}

/// Whether keys can be taken and released there; the token.
async fn probe(desk: &Desk) -> Result<Option<u64>, BackendError> {
    let key = Key::probe(HolderId::random());
    let token = desk.take(&key, desk.limit, 0, &"".into()).await?;
    desk.give_back(&key).await?;
    Ok(token)
}
