//! Finding stacks of rate limits.

use std::collections::BTreeMap;

use crate::StackManager;
use crate::error::{Error, failed};
use crate::names::user_name;
use crate::summary::StackSummary;
use crate::tags::{FUNCTIONS, LIMITER, MANAGED_BY, NAME, SCHEMA, TYPE, Tags, VERSION};

/// A stack that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundStack {
    /// The name by which its user knows it.
    pub user_name: String,
    /// Its type: `limiter`, or another one.
    pub kind: String,
    /// The release that deployed it.
    pub version: Option<String>,
    /// The version of its functions.
    pub functions: Option<String>,
    /// The version of its schema.
    pub schema: Option<String>,
    /// The stack.
    pub stack: StackSummary,
}

impl FoundStack {
    /// A stack, if it is of rate limits.
    fn of(stack: StackSummary, tags: Option<&Tags>) -> Option<Self> {
        let tags = tags.unwrap_or(&stack.tags);
        let managed = tags.get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1);
        if !(managed || stack.name.starts_with("ZAEL-")) || stack.status == "DELETE_COMPLETE" {
            return None;
        }
        let tag = |key| tags.get(key).filter(|value| !value.is_empty()).cloned();
        Some(Self {
            user_name: tag(NAME).unwrap_or_else(|| user_name(&stack.name).to_owned()),
            kind: tag(TYPE).unwrap_or_else(|| LIMITER.to_owned()),
            version: tag(VERSION),
            functions: tag(FUNCTIONS),
            schema: tag(SCHEMA),
            stack,
        })
    }
}

impl StackManager {
    /// The stacks of rate limits in the region, by name.
    ///
    /// They carry the tag `ManagedBy=zae-limiter`; some of old releases are known by their names' prefix `ZAEL-`.
    pub async fn list(&self) -> Result<Vec<FoundStack>, Error> {
        self.stacks_of(LIMITER).await
    }

    /// The stacks of a type, by name.
    pub(crate) async fn stacks_of(&self, kind: &str) -> Result<Vec<FoundStack>, Error> {
        // It knows of tags sooner than CloudFormation, but is missing on some servers.
        let tagged = self.tagged().await.unwrap_or_default();
        let mut found = Vec::new();
        let mut token = None;
        loop {
            let call = self.clients.stacks.describe_stacks().set_next_token(token);
            let page = call.send().await.map_err(failed("DescribeStacks"))?;
            for stack in page.stacks() {
                let stack = StackSummary::of(stack);
                let tags = tagged.get(&stack.name).cloned();
                found.extend(FoundStack::of(stack, tags.as_ref()));
            }
            match page.next_token {
                Some(next) => token = Some(next),
                None => break,
            }
        }
        found.retain(|one| one.kind == kind);
        found.sort_by(|a, b| (&a.user_name, &a.stack.name).cmp(&(&b.user_name, &b.stack.name)));
        Ok(found)
    }

    /// Tags by stack, from the tagging service.
    async fn tagged(&self) -> Option<BTreeMap<String, Tags>> {
        use aws_sdk_resourcegroupstagging::types::TagFilter;
        let filter = TagFilter::builder()
            .key(MANAGED_BY.0)
            .values(MANAGED_BY.1)
            .build();
        let mut found = BTreeMap::new();
        let mut token = None;
        loop {
            let call = self
                .clients
                .tagging
                .get_resources()
                .resource_type_filters("cloudformation:stack")
                .tag_filters(filter.clone())
                .set_pagination_token(token);
            let page = call.send().await.ok()?;
            for resource in page.resource_tag_mapping_list() {
                let Some(name) = resource.resource_arn().and_then(|arn| arn.split('/').nth(1)) else {
                    continue;
                };
                let tags = resource
                    .tags()
                    .iter()
                    .map(|tag| (tag.key.clone(), tag.value.clone()));
                found.insert(name.to_owned(), tags.collect::<Tags>());
            }
            match page.pagination_token.filter(|token| !token.is_empty()) {
                Some(next) => token = Some(next),
                None => return Some(found),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(name: &str, tags: &[(&str, &str)], status: &str) -> StackSummary {
        StackSummary {
            name: name.into(),
            status: status.into(),
            tags: tags.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            ..StackSummary::default()
        }
    }

    #[test]
    fn stacks_are_found_by_tag_or_old_name() {
        let ours = [MANAGED_BY, (NAME, "shown"), (VERSION, "0.17.0")];
        let found = FoundStack::of(stack("app", &ours, "CREATE_COMPLETE"), None).unwrap();
        assert_eq!((&*found.user_name, &*found.kind), ("shown", "limiter"));
        assert_eq!((found.version.as_deref(), found.schema), (Some("0.17.0"), None));
        let old = FoundStack::of(stack("ZAEL-app", &[], "CREATE_COMPLETE"), None).unwrap();
        assert_eq!((&*old.user_name, old.version), ("app", None));
        assert_eq!(FoundStack::of(stack("other", &[], "CREATE_COMPLETE"), None), None);
        assert_eq!(FoundStack::of(stack("app", &ours, "DELETE_COMPLETE"), None), None);
        // The tagging service's word counts for more.
        let tags = Tags::from([
            (MANAGED_BY.0.into(), MANAGED_BY.1.into()),
            (TYPE.into(), "load-test".into()),
        ]);
        let found = FoundStack::of(stack("x", &[], "UPDATE_COMPLETE"), Some(&tags)).unwrap();
        assert_eq!(found.kind, "load-test");
    }
}
