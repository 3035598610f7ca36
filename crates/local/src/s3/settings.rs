//! Settings of buckets: kept as they are sent, and written from CloudFormation's properties.

use serde_json::Value as Json;

use super::xml::Element;
use crate::wire::{Refusal, Xml};

/// The namespace of S3's XML.
pub(super) const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// A setting of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// The public access block.
    PublicAccessBlock,
    /// How objects are encrypted unless the request says.
    Encryption,
    /// When objects move to another class, or go.
    Lifecycle,
    /// Whose an uploaded object is.
    OwnershipControls,
    /// The policy, as JSON.
    Policy,
}

impl Setting {
    /// All of them.
    pub(super) const ALL: [Self; 5] = [
        Self::PublicAccessBlock,
        Self::Encryption,
        Self::Lifecycle,
        Self::OwnershipControls,
        Self::Policy,
    ];

    /// The parameter by which addresses name it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::PublicAccessBlock => "publicAccessBlock",
            Self::Encryption => "encryption",
            Self::Lifecycle => "lifecycle",
            Self::OwnershipControls => "ownershipControls",
            Self::Policy => "policy",
        }
    }

    const fn root(self) -> &'static str {
        match self {
            Self::PublicAccessBlock => "PublicAccessBlockConfiguration",
            Self::Encryption => "ServerSideEncryptionConfiguration",
            Self::Lifecycle => "LifecycleConfiguration",
            Self::OwnershipControls => "OwnershipControls",
            Self::Policy => "",
        }
    }

    /// The default of a setting, or S3's code for a missing setting.
    pub(super) fn unset(self) -> Result<String, Refusal> {
        let none = |code: &'static str, what: &str| {
            Err(Refusal::new(code, format!("The bucket has no {what}")).status(404))
        };
        match self {
            Self::PublicAccessBlock => none("NoSuchPublicAccessBlockConfiguration", "public access block"),
            Self::Lifecycle => none("NoSuchLifecycleConfiguration", "lifecycle configuration"),
            Self::Policy => none("NoSuchBucketPolicy", "bucket policy"),
            Self::Encryption => Ok(self.document(|xml| {
                xml.nest("Rule", |rule| {
                    rule.nest("ApplyServerSideEncryptionByDefault", |default| {
                        default.element("SSEAlgorithm", "AES256");
                    })
                    .element("BucketKeyEnabled", "false");
                });
                Ok(())
            })?),
            Self::OwnershipControls => Ok(self.document(|xml| {
                xml.nest("Rule", |rule| {
                    rule.element("ObjectOwnership", "BucketOwnerEnforced");
                });
                Ok(())
            })?),
        }
    }

    /// Checks that a text is such a setting.
    pub(super) fn check(self, text: &str) -> Result<(), Refusal> {
        if self != Self::Policy {
            return Element::expect(text.as_bytes(), self.root()).map(|_| ());
        }
        match serde_json::from_str::<Json>(text) {
            Ok(Json::Object(policy)) if policy.contains_key("Statement") => Ok(()),
            Ok(_) => Err(Refusal::new(
                "MalformedPolicy",
                "Missing required field Statement",
            )),
            Err(err) => Err(Refusal::new(
                "MalformedPolicy",
                format!("Policies must be valid JSON: {err}"),
            )),
        }
    }

    /// The setting that CloudFormation's property of it means: `PublicAccessBlockConfiguration`, `BucketEncryption`,
    /// `LifecycleConfiguration`, `OwnershipControls`, or a bucket policy's `PolicyDocument`.
    ///
    /// # Errors
    /// `InvalidRequest` with the name of what is not known here.
    pub fn from_properties(self, properties: &Json) -> Result<String, Refusal> {
        match self {
            Self::Policy => Ok(properties.to_string()),
            Self::PublicAccessBlock => self.document(|xml| {
                const FIELDS: [&str; 4] = [
                    "BlockPublicAcls",
                    "IgnorePublicAcls",
                    "BlockPublicPolicy",
                    "RestrictPublicBuckets",
                ];
                Fields::of(properties, self.root())?.copy(xml, &FIELDS)?.end()
            }),
            Self::Encryption => self.document(|xml| {
                let mut fields = Fields::of(properties, "BucketEncryption")?;
                for rule in fields.list("ServerSideEncryptionConfiguration")? {
                    let mut rule = Fields::of(rule, "ServerSideEncryptionConfiguration")?;
                    let mut inner = Xml::default();
                    if let Some(default) = rule.take("ServerSideEncryptionByDefault") {
                        let mut values = Xml::default();
                        Fields::of(default, "ServerSideEncryptionByDefault")?
                            .copy(&mut values, &["SSEAlgorithm", "KMSMasterKeyID"])?
                            .end()?;
                        inner.raw("ApplyServerSideEncryptionByDefault", &values);
                    }
                    rule.copy(&mut inner, &["BucketKeyEnabled"])?.end()?;
                    xml.raw("Rule", &inner);
                }
                fields.end()
            }),
            Self::Lifecycle => self.document(|xml| {
                let mut fields = Fields::of(properties, self.root())?;
                for rule in fields.list("Rules")? {
                    xml.raw("Rule", &lifecycle_rule(rule)?);
                }
                fields.end()
            }),
            Self::OwnershipControls => self.document(|xml| {
                let mut fields = Fields::of(properties, self.root())?;
                for rule in fields.list("Rules")? {
                    let mut inner = Xml::default();
                    Fields::of(rule, "Rules")?
                        .copy(&mut inner, &["ObjectOwnership"])?
                        .end()?;
                    xml.raw("Rule", &inner);
                }
                fields.end()
            }),
        }
    }

    fn document(self, fill: impl FnOnce(&mut Xml) -> Result<(), Refusal>) -> Result<String, Refusal> {
        let mut xml = Xml::default();
        fill(&mut xml)?;
        let root = self.root();
        Ok(format!("<{root} xmlns=\"{NAMESPACE}\">{}</{root}>", xml.as_str()))
    }
}

fn lifecycle_rule(rule: &Json) -> Result<Xml, Refusal> {
    let mut rule = Fields::of(rule, "Rules")?;
    let mut xml = Xml::default();
    if let Some(id) = rule.text("Id")? {
        xml.element("ID", &id);
    }
    let prefix = rule.text("Prefix")?.unwrap_or_default();
    xml.nest("Filter", |filter| {
        filter.element("Prefix", &prefix);
    });
    rule.write(&mut xml, &["Status"])?;
    for transition in rule.list("Transitions")? {
        let mut transition = Fields::of(transition, "Transitions")?;
        let mut inner = Xml::default();
        inner.optional("Days", transition.text("TransitionInDays")?.as_deref());
        transition.copy(&mut inner, &["StorageClass"])?.end()?;
        xml.raw("Transition", &inner);
    }
    if let Some(days) = rule.text("ExpirationInDays")? {
        xml.nest("Expiration", |expiration| {
            expiration.element("Days", &days);
        });
    }
    if let Some(abort) = rule.take("AbortIncompleteMultipartUpload") {
        let mut inner = Xml::default();
        Fields::of(abort, "AbortIncompleteMultipartUpload")?
            .copy(&mut inner, &["DaysAfterInitiation"])?
            .end()?;
        xml.raw("AbortIncompleteMultipartUpload", &inner);
    }
    rule.end()?;
    Ok(xml)
}

/// The properties of a structure, taken one by one: what is left at the end is not known.
struct Fields<'a> {
    of: &'a str,
    left: Vec<(&'a String, &'a Json)>,
}

impl<'a> Fields<'a> {
    fn of(value: &'a Json, of: &'a str) -> Result<Self, Refusal> {
        let Json::Object(fields) = value else {
            return Err(invalid(&format!("{of} must be an object, not {value}")));
        };
        Ok(Self {
            of,
            left: fields.iter().collect(),
        })
    }

    fn take(&mut self, name: &str) -> Option<&'a Json> {
        let index = self.left.iter().position(|(key, _)| *key == name)?;
        Some(self.left.swap_remove(index).1)
    }

    fn list(&mut self, name: &str) -> Result<&'a [Json], Refusal> {
        match self.take(name) {
            None => Ok(&[]),
            Some(Json::Array(items)) => Ok(items),
            Some(other) => Err(invalid(&format!(
                "{}.{name} must be a list, not {other}",
                self.of
            ))),
        }
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.clone())),
            Some(scalar @ (Json::Bool(_) | Json::Number(_))) => Ok(Some(scalar.to_string())),
            Some(other) => Err(invalid(&format!(
                "{}.{name} must be a text, not {other}",
                self.of
            ))),
        }
    }

    /// Writes fields as elements of the same name.
    fn copy(mut self, xml: &mut Xml, names: &[&str]) -> Result<Self, Refusal> {
        self.write(xml, names)?;
        Ok(self)
    }

    fn write(&mut self, xml: &mut Xml, names: &[&str]) -> Result<(), Refusal> {
        for name in names {
            xml.optional(name, self.text(name)?.as_deref());
        }
        Ok(())
    }

    fn end(self) -> Result<(), Refusal> {
        match self.left.first() {
            None => Ok(()),
            Some((name, _)) => Err(invalid(&format!(
                "{}.{name} is not known to the local endpoint",
                self.of
            ))),
        }
    }
}

fn invalid(what: &str) -> Refusal {
    Refusal::new("InvalidRequest", what)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(setting: Setting, properties: &Json, inner: &str) {
        let text = setting.from_properties(properties).unwrap();
        let root = setting.root();
        assert_eq!(text, format!("<{root} xmlns=\"{NAMESPACE}\">{inner}</{root}>"));
        setting.check(&text).unwrap();
    }

    #[test]
    fn the_templates_properties_become_settings() {
        check(
            Setting::Encryption,
            &json!({"ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}),
            "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm>\
             </ApplyServerSideEncryptionByDefault></Rule>",
        );
        check(
            Setting::PublicAccessBlock,
            &json!({"BlockPublicAcls": true, "IgnorePublicAcls": "true"}),
            "<BlockPublicAcls>true</BlockPublicAcls><IgnorePublicAcls>true</IgnorePublicAcls>",
        );
        check(
            Setting::Lifecycle,
            &json!({"Rules": [{
                "Id": "T", "Status": "Enabled", "Transitions": [{"StorageClass": "GLACIER_IR", "TransitionInDays": "90"}],
            }]}),
            "<Rule><ID>T</ID><Filter><Prefix></Prefix></Filter><Status>Enabled</Status><Transition><Days>90</Days>\
             <StorageClass>GLACIER_IR</StorageClass></Transition></Rule>",
        );
        check(
            Setting::OwnershipControls,
            &json!({"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}),
            "<Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule>",
        );
    }

    #[test]
    fn what_is_not_known_is_named() {
        let refused =
            |setting: Setting, properties: Json| setting.from_properties(&properties).unwrap_err().message;
        let odd = json!({"Rules": [{"Status": "Enabled", "ObjectSizeLessThan": 7}]});
        assert!(refused(Setting::Lifecycle, odd).contains("Rules.ObjectSizeLessThan"));
        assert!(
            refused(Setting::PublicAccessBlock, json!({"X": 1})).contains("PublicAccessBlockConfiguration.X")
        );
        assert!(refused(Setting::Encryption, json!([])).contains("must be an object"));
        assert_eq!(Setting::Policy.check("{").unwrap_err().code, "MalformedPolicy");
        assert_eq!(
            Setting::Lifecycle.check("<Other/>").unwrap_err().code,
            "MalformedXML"
        );
    }
}
