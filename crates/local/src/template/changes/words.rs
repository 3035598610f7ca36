//! CloudFormation's words for changes.

/// The change of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is created.
    Add,
    /// It is updated or replaced.
    Modify,
    /// It leaves the stack.
    Remove,
}

impl Action {
    /// CloudFormation's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "Add",
            Self::Modify => "Modify",
            Self::Remove => "Remove",
        }
    }
}

/// Whether a change of a property replaces its resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recreation {
    /// It does not.
    Never,
    /// It depends on the values.
    Conditionally,
    /// It does.
    Always,
}

impl Recreation {
    /// CloudFormation's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "Never",
            Self::Conditionally => "Conditionally",
            Self::Always => "Always",
        }
    }
}

/// Whether a resource is replaced; a greater one is more certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Replacement {
    /// It is not.
    False,
    /// It may be.
    Conditional,
    /// It is.
    True,
}

impl Replacement {
    /// CloudFormation's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::False => "False",
            Self::Conditional => "Conditional",
            Self::True => "True",
        }
    }
}

/// The changed part of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// A property.
    Properties,
    /// Its metadata.
    Metadata,
    /// The policy when it leaves the stack.
    DeletionPolicy,
    /// The policy when it is replaced.
    UpdateReplacePolicy,
}

impl Attribute {
    /// CloudFormation's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Properties => "Properties",
            Self::Metadata => "Metadata",
            Self::DeletionPolicy => "DeletionPolicy",
            Self::UpdateReplacePolicy => "UpdateReplacePolicy",
        }
    }
}

/// Whether a new value is known before the update is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evaluation {
    /// It is.
    Static,
    /// It is not, and may be the old one.
    Dynamic,
}

impl Evaluation {
    /// CloudFormation's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Static => "Static",
            Self::Dynamic => "Dynamic",
        }
    }
}

/// Where a change comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeSource {
    /// The template says something else, or a condition has turned.
    DirectModification,
    /// A parameter has another value.
    ParameterReference,
    /// A resource that is referred to is created or replaced.
    ResourceReference,
    /// An attribute of a resource that changes is referred to.
    ResourceAttribute,
}

impl ChangeSource {
    /// CloudFormation's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DirectModification => "DirectModification",
            Self::ParameterReference => "ParameterReference",
            Self::ResourceReference => "ResourceReference",
            Self::ResourceAttribute => "ResourceAttribute",
        }
    }
}
