//! How the host of a token service is reached: a registry names it, and it has a certificate of its own.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::Uri;

use crate::address::{Address, Origin};
use crate::endpoint::Endpoint;
use crate::error::Result;
use crate::hosts;
use crate::tls::OwnTls;
use crate::token::Service;
use crate::transport::Transport;

impl Endpoint {
    /// The transport to a token service of the registry at `home`. What the folders of certificates say of the service's
    /// own host holds for it; where they say nothing, the registry's authorities are trusted beside this host's, as Docker
    /// and containerd do. The registry's client certificates and its `skip_verify` are not for others.
    ///
    /// # Errors
    /// `Hosts` for a file that cannot be used.
    pub(crate) fn transport_to(&self, home: &Origin, service: &Service) -> Result<Arc<Transport>> {
        let realm = service.realm.parse::<Uri>().ok().as_ref().and_then(Origin::of).filter(|realm| realm.tls);
        // Who may not be asked is told elsewhere; the registry itself is reached as it always is.
        let Some(realm) = realm.filter(|realm| realm != home) else { return Ok(self.transport.clone()) };
        let own = self.realm_tls(home, &realm)?;
        Ok(self.shared.transport_for(realm, own))
    }

    /// `None`: what holds for all hosts, with Docker's files for this one where there are some.
    fn realm_tls(&self, home: &Origin, realm: &Origin) -> Result<Option<OwnTls>> {
        let network = &self.shared.transport.network;
        let authority = network.insecure.authority(realm);
        let address = Address { host: realm.host.clone(), port: Some(realm.port) };
        if let Some(found) = hosts::of_host(network.trust.certs_dirs(), &authority, &address)? {
            let of_it = |host: &hosts::Host| Origin::new(host.tls, &host.address) == *realm;
            let own = found.server.into_iter().chain(found.mirrors).find(of_it).and_then(|host| host.own);
            if own.is_some() {
                return Ok(own);
            }
        }
        if network.trust.has_files(&authority) || network.insecure.contains(&authority, &realm.host) {
            return Ok(None);
        }
        let ca = self.authorities(home);
        Ok((!ca.is_empty()).then_some(OwnTls { ca, clients: Vec::new(), skip_verify: false }))
    }

    /// Files of the authorities that were given for the registry.
    fn authorities(&self, home: &Origin) -> Vec<PathBuf> {
        match &self.own {
            Some(own) => own.ca.clone(),
            None => {
                let network = &self.shared.transport.network;
                network.trust.authorities(&network.insecure.authority(home))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Client, ClientOptions};
    use std::fs;

    /// What a registry's service would be reached with.
    fn own(certs: &std::path::Path, registry: &str, realm: &str) -> Option<OwnTls> {
        let options = ClientOptions { certs_dirs: vec![certs.to_owned()], ..ClientOptions::default() };
        let reference = wharf_reference::Reference::parse(&format!("{registry}/app")).unwrap();
        let repository = Client::new(options).unwrap().repository(&reference, None);
        let home = Origin::new(true, &Address::parse(registry).unwrap());
        let realm = Origin::of(&realm.parse().unwrap()).unwrap();
        repository.home().unwrap().realm_tls(&home, &realm).unwrap()
    }

    #[test]
    fn a_service_is_trusted_by_its_own_folder_or_else_by_the_registrys_authorities() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str, file: &str, text: &str| {
            let folder = dir.path().join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(file), text).unwrap();
            folder
        };
        let realm = "https://auth.example/token";
        assert_eq!(own(dir.path(), "a.example", realm), None);
        let a = folder("a.example", "ca.crt", "");
        let of_registry = OwnTls { ca: vec![a.join("ca.crt")], clients: Vec::new(), skip_verify: false };
        assert_eq!(own(dir.path(), "a.example", realm), Some(of_registry));
        folder("b.example", "hosts.toml", "ca = 'b.pem'\nclient = 'c.pem'\nskip_verify = true\n");
        let found = own(dir.path(), "b.example", realm).unwrap();
        assert!(found.ca == [dir.path().join("b.example/b.pem")] && found.clients.is_empty() && !found.skip_verify);
        // What is of the service's own host goes before it; Docker's files the transport finds by itself.
        let auth = folder("auth.example", "x.crt", "");
        assert_eq!(own(dir.path(), "b.example", realm), None);
        fs::remove_file(auth.join("x.crt")).unwrap();
        folder("auth.example", "hosts.toml", "[host.'https://auth.example']\nca = 'own.pem'\nclient = 'own.pem'\n");
        let found = own(dir.path(), "b.example", realm).unwrap();
        assert!(found.ca == [auth.join("own.pem")] && found.clients.len() == 1);
    }
}
