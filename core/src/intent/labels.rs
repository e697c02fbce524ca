//! The 49 shop intents: label, meaning, slots and risk, in label order.
//!
//! They come from `core/data/intents.json`, a copy of the design's list; the order there is the class order
//! of every intent head and of every [`crate::recognition::Prediction::label_id`].

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::recognition::Risk;

const INTENTS_JSON: &str = include_str!("../../data/intents.json");

/// One intent that a shop can act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IntentInfo {
    /// The class, its place in the list.
    pub id: usize,
    /// The label, such as `add_to_cart`.
    pub intent: String,
    /// What it means, in a few English words.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub means: Option<String>,
    /// How hard the action is to undo.
    pub risk: Risk,
    /// The values that it can carry.
    pub slots: Vec<String>,
}

#[derive(Deserialize)]
struct IntentFile {
    intents: Vec<IntentRow>,
}

#[derive(Deserialize)]
struct IntentRow {
    intent: String,
    #[serde(default)]
    means: Option<String>,
    risk: Risk,
    #[serde(default)]
    slots: Vec<String>,
}

/// The intents that this crate knows by itself, in class order: `built_in()[id].id == id`.
#[must_use]
pub fn built_in() -> &'static [IntentInfo] {
    static INTENTS: OnceLock<Vec<IntentInfo>> = OnceLock::new();
    INTENTS.get_or_init(|| {
        let file: IntentFile = serde_json::from_str(INTENTS_JSON).expect("core/data/intents.json is checked by a test");
        file.intents
            .into_iter()
            .enumerate()
            .map(|(id, IntentRow { intent, means, risk, slots })| IntentInfo { id, intent, means, risk, slots })
            .collect()
    })
}

/// The class of a label of [`built_in`].
#[must_use]
pub fn label_id(intent: &str) -> Option<usize> {
    built_in().iter().position(|i| i.intent == intent)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn there_are_49_in_alphabetical_order() {
        let intents = built_in();
        assert_eq!(intents.len(), 49);
        assert!(intents.windows(2).all(|w| w[0].intent < w[1].intent));
        assert!(intents.iter().enumerate().all(|(at, i)| i.id == at && i.means.is_some()));
    }

    #[test]
    fn money_and_lost_data_ask_first() {
        for label in ["make_payment", "checkout", "confirm_order", "cancel_order", "clear_cart", "remove_address"] {
            assert_eq!(built_in()[label_id(label).unwrap()].risk, Risk::Confirm, "{label}");
        }
        assert_eq!(label_id("search").map(|id| built_in()[id].slots.len()), Some(6));
        assert_eq!(label_id("unknown"), None);
    }
}
