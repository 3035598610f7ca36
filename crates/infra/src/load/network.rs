//! The networks that load generators can be put in: VPCs, their subnets, and the routes to DynamoDB.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::call::Service;
use crate::{Error, StackManager};

/// The most pages of a listing that are read.
const PAGES: usize = 100;

/// A VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vpc {
    /// Its id.
    pub id: String,
    /// Its name, by its tag.
    pub name: Option<String>,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// Its id.
    pub id: String,
    /// The availability zone that it is in.
    pub zone: String,
    /// Its name, by its tag.
    pub name: Option<String>,
}

/// How DynamoDB is reached from subnets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DynamoRoute {
    /// The VPC has a gateway endpoint: its id.
    Endpoint(String),
    /// It has none. The route tables of the subnets, for one.
    Tables(Vec<String>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List<T> {
    #[serde(default = "Vec::new")]
    item: Vec<T>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { item: Vec::new() }
    }
}

/// A page of a listing.
trait Page: DeserializeOwned {
    type Item;

    /// Its items, and the mark of the next page.
    fn parts(self) -> (Vec<Self::Item>, Option<String>);
}

/// Declares a page whose items are in an element of this name.
macro_rules! page {
    ($page:ident, $item:ty, $set:literal) => {
        #[derive(Deserialize)]
        struct $page {
            #[serde(rename = $set, default)]
            set: List<$item>,
            #[serde(rename = "nextToken")]
            next: Option<String>,
        }

        impl Page for $page {
            type Item = $item;

            fn parts(self) -> (Vec<$item>, Option<String>) {
                (self.set.item, self.next.filter(|next| !next.is_empty()))
            }
        }
    };
}

#[derive(Deserialize)]
struct TagForm {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VpcForm {
    vpc_id: String,
    #[serde(default)]
    tag_set: List<TagForm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SubnetForm {
    subnet_id: String,
    #[serde(default)]
    availability_zone: String,
    #[serde(default)]
    tag_set: List<TagForm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RouteTableForm {
    route_table_id: String,
    #[serde(default)]
    association_set: List<AssociationForm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AssociationForm {
    subnet_id: Option<String>,
    #[serde(default)]
    main: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointForm {
    vpc_endpoint_id: String,
    #[serde(default)]
    vpc_endpoint_type: String,
    #[serde(default)]
    state: String,
}

page!(VpcPage, VpcForm, "vpcSet");
page!(SubnetPage, SubnetForm, "subnetSet");
page!(RouteTablePage, RouteTableForm, "routeTableSet");
page!(EndpointPage, EndpointForm, "vpcEndpointSet");

fn name_of(tags: List<TagForm>) -> Option<String> {
    let mut tags = tags.item.into_iter();
    let name = tags.find(|tag| tag.key == "Name").map(|tag| tag.value);
    name.filter(|name| !name.is_empty())
}

/// The route tables of subnets: those that they are associated with, and the VPC's own for the rest.
fn tables_of(tables: &[RouteTableForm], subnets: &[String]) -> Vec<String> {
    let of = |wanted: &dyn Fn(&AssociationForm) -> bool| {
        let mut tables = tables.iter();
        tables
            .find(|table| table.association_set.item.iter().any(wanted))
            .map(|table| table.route_table_id.clone())
    };
    let found: BTreeSet<String> = subnets
        .iter()
        .filter_map(|subnet| {
            of(&|association| association.subnet_id.as_ref() == Some(subnet))
                .or_else(|| of(&|association| association.main))
        })
        .collect();
    found.into_iter().collect()
}

impl StackManager {
    /// All items of a listing of EC2, restricted by filters.
    async fn described<P: Page>(
        &self,
        operation: &'static str,
        filters: &[(&str, &str)],
    ) -> Result<Vec<P::Item>, Error> {
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..PAGES {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.append_pair("Action", operation)
                .append_pair("Version", "2016-11-15");
            for (number, (name, value)) in (1..).zip(filters) {
                form.append_pair(&format!("Filter.{number}.Name"), name)
                    .append_pair(&format!("Filter.{number}.Value.1"), value);
            }
            if let Some(token) = &next {
                form.append_pair("NextToken", token);
            }
            let body = self
                .caller
                .call(Service::Ec2, self.region()?, operation, form.finish())
                .await?;
            let page: P = quick_xml::de::from_str(&body)
                .map_err(|err| Error::unreadable(operation, &err.to_string()))?;
            let (items, token) = page.parts();
            found.extend(items);
            next = token;
            if next.is_none() {
                return Ok(found);
            }
        }
        Err(Error::unreadable(operation, "the listing does not end"))
    }

    /// The VPCs of the region, by name and id.
    ///
    /// # Errors
    /// [`Error::Aws`] if EC2 does not answer or refuses.
    pub async fn vpcs(&self) -> Result<Vec<Vpc>, Error> {
        let found = self.described::<VpcPage>("DescribeVpcs", &[]).await?;
        let mut vpcs: Vec<Vpc> = found
            .into_iter()
            .map(|vpc| Vpc {
                id: vpc.vpc_id,
                name: name_of(vpc.tag_set),
            })
            .collect();
        vpcs.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(vpcs)
    }

    /// The subnets of a VPC, by zone and id.
    ///
    /// # Errors
    /// [`Error::Aws`] if EC2 does not answer or refuses.
    pub async fn subnets(&self, vpc: &str) -> Result<Vec<Subnet>, Error> {
        let found = self
            .described::<SubnetPage>("DescribeSubnets", &[("vpc-id", vpc)])
            .await?;
        let mut subnets: Vec<Subnet> = found
            .into_iter()
            .map(|subnet| Subnet {
                id: subnet.subnet_id,
                zone: subnet.availability_zone,
                name: name_of(subnet.tag_set),
            })
            .collect();
        subnets.sort_by(|a, b| (&a.zone, &a.id).cmp(&(&b.zone, &b.id)));
        Ok(subnets)
    }

    /// How subnets of a VPC reach DynamoDB. An endpoint with the id `own` does not count.
    ///
    /// # Errors
    /// [`Error::Aws`] if EC2 does not answer or refuses.
    pub async fn dynamo_route(
        &self,
        vpc: &str,
        subnets: &[String],
        own: Option<&str>,
    ) -> Result<DynamoRoute, Error> {
        let service = format!("com.amazonaws.{}.dynamodb", self.region()?);
        let filters = [("vpc-id", vpc), ("service-name", service.as_str())];
        let endpoints = self
            .described::<EndpointPage>("DescribeVpcEndpoints", &filters)
            .await?;
        let there = endpoints.into_iter().find(|endpoint| {
            let leaves = ["deleting", "deleted", "failed", "rejected", "expired"];
            endpoint.vpc_endpoint_type.eq_ignore_ascii_case("gateway")
                && !leaves
                    .iter()
                    .any(|state| endpoint.state.eq_ignore_ascii_case(state))
                && own != Some(&endpoint.vpc_endpoint_id)
        });
        if let Some(endpoint) = there {
            return Ok(DynamoRoute::Endpoint(endpoint.vpc_endpoint_id));
        }
        let tables = self
            .described::<RouteTablePage>("DescribeRouteTables", &[("vpc-id", vpc)])
            .await?;
        Ok(DynamoRoute::Tables(tables_of(&tables, subnets)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read() {
        let xml = "<DescribeSubnetsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
                   <requestId>x</requestId><subnetSet><item><subnetId>subnet-1</subnetId>\
                   <availabilityZone>eu-west-1a</availabilityZone><cidrBlock>10.0.0.0/24</cidrBlock>\
                   <tagSet><item><key>a</key><value>b</value></item><item><key>Name</key><value>one</value></item></tagSet>\
                   </item><item><subnetId>subnet-2</subnetId><tagSet/></item></subnetSet>\
                   <nextToken>more</nextToken></DescribeSubnetsResponse>";
        let page: SubnetPage = quick_xml::de::from_str(xml).unwrap();
        let (items, next) = page.parts();
        assert_eq!(next.as_deref(), Some("more"));
        let found: Vec<_> = items
            .into_iter()
            .map(|item| (item.subnet_id, item.availability_zone, name_of(item.tag_set)))
            .collect();
        assert_eq!(
            found,
            [
                (
                    "subnet-1".to_owned(),
                    "eu-west-1a".to_owned(),
                    Some("one".to_owned())
                ),
                ("subnet-2".to_owned(), String::new(), None)
            ]
        );
        let none = "<DescribeVpcsResponse><vpcSet/></DescribeVpcsResponse>";
        let page: VpcPage = quick_xml::de::from_str(none).unwrap();
        let (items, next) = page.parts();
        assert!(items.is_empty() && next.is_none());
    }

    #[test]
    fn a_subnet_without_a_route_table_of_its_own_has_that_of_the_vpc() {
        let xml = "<R><routeTableSet>\
                   <item><routeTableId>rtb-main</routeTableId><associationSet><item><main>true</main></item>\
                   </associationSet></item>\
                   <item><routeTableId>rtb-a</routeTableId><associationSet>\
                   <item><main>false</main><subnetId>subnet-a</subnetId></item>\
                   <item><main>false</main><subnetId>subnet-b</subnetId></item></associationSet></item>\
                   <item><routeTableId>rtb-idle</routeTableId></item></routeTableSet></R>";
        let page: RouteTablePage = quick_xml::de::from_str(xml).unwrap();
        let (tables, _) = page.parts();
        let of = |subnets: &[&str]| {
            let subnets: Vec<String> = subnets.iter().map(|id| (*id).to_owned()).collect();
            tables_of(&tables, &subnets)
        };
        assert_eq!(of(&["subnet-b", "subnet-a"]), ["rtb-a"]);
        assert_eq!(of(&["subnet-a", "subnet-c"]), ["rtb-a", "rtb-main"]);
        assert_eq!(of(&[]), [""; 0]);
    }
}
