//! The file's shape as a JSON schema, for editors and checkers.

use schemars::Schema;

use super::file::File;

/// The schema, made from the types that read the file.
pub(super) fn schema() -> Schema {
    let mut schema = schemars::schema_for!(File);
    schema.insert("title".to_owned(), "plat.toml".into());
    schema
}

/// As it is committed.
pub(super) fn text() -> String {
    let text = serde_json::to_string_pretty(schema().as_value());
    // A value that was just made is JSON.
    text.unwrap_or_default() + "\n"
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::Value;

    const COMMITTED: &str = include_str!("../../../installers/linux/plat.schema.json");

    /// Every key of the schema, with dots. Of a list of tables, the list.
    pub(in super::super) fn keys() -> Vec<String> {
        fn walk(root: &Value, at: &Value, above: &str, found: &mut Vec<String>) {
            let at = match at["$ref"].as_str() {
                Some(path) => root.pointer(path.trim_start_matches('#')).unwrap(),
                None => at,
            };
            match at["properties"].as_object() {
                Some(properties) => {
                    for (key, inner) in properties {
                        let dot = if above.is_empty() { "" } else { "." };
                        walk(root, inner, &format!("{above}{dot}{key}"), found);
                    }
                }
                None => found.push(above.to_owned()),
            }
        }
        let schema = schema();
        let mut found = Vec::new();
        walk(schema.as_value(), schema.as_value(), "", &mut found);
        found
    }

    /// To renew it: `plat config schema > installers/linux/plat.schema.json`.
    #[test]
    fn the_committed_schema_is_that_of_the_types() {
        assert_eq!(COMMITTED, text());
    }

    #[test]
    fn every_key_of_the_schema_is_described() {
        fn walk(at: &Value) {
            if let Some(properties) = at["properties"].as_object() {
                for (key, property) in properties {
                    let described = property["description"].is_string();
                    assert!(described || property.get("$ref").is_some(), "{key}");
                    walk(property);
                }
            }
        }
        let schema = schema();
        walk(schema.as_value());
        for definition in schema.as_value()["$defs"].as_object().unwrap().values() {
            walk(definition);
        }
        assert!(keys().len() > 15, "{:?}", keys());
    }
}
