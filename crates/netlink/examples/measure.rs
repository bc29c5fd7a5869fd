use std::os::fd::AsFd; use std::time::Instant; use std::net::Ipv4Addr;
use wharf_netlink::{namespace, MacAddress, route::*};
fn main() {
    namespace::create(|| {
        let route = Connection::open().unwrap();
        let mut b = Batch::new();
        b.set_up(1).create_bridge(&Bridge{name:"br0",mac:MacAddress([2,0,0,0,0,1]),mtu:1500}).mark_and_set_up("br0","x");
        route.apply(b).unwrap();
        let br = route.link("br0").unwrap().unwrap().index;
        let n = 50;
        let t=Instant::now();
        let ns: Vec<_> = (0..n).map(|_| namespace::create(|| { let r=Connection::open()?; let mut b=Batch::new(); b.set_up(1); r.apply(b) }).unwrap()).collect();
        println!("netns create {:?}", t.elapsed()/n);
        let t=Instant::now();
        for i in 0..n as usize { let mut b=Batch::new(); let name=format!("v{i}");
            b.create_veth(&Veth{name:&name,mtu:1500,master:Some(br),peer:Peer{name:"eth0",mac:MacAddress([2,0,0,0,1,i as u8]),netns:ns[i].as_fd()}}).mark_and_set_up(&name,"y");
            route.apply(b).unwrap(); }
        println!("veth create+up {:?}", t.elapsed()/n);
        let t=Instant::now();
        for i in 0..n as usize { namespace::within(ns[i].as_fd(), || { let r=Connection::open().unwrap(); let l=r.link("eth0").unwrap().unwrap().index; let mut b=Batch::new();
            b.set_up(l).add_address(l, Ipv4Addr::new(10,0,0,(i+2) as u8), 24).add_route(&Route{destination:(Ipv4Addr::UNSPECIFIED,0),gateway:Some(Ipv4Addr::new(10,0,0,1)),link:l,metric:0}); r.apply(b).unwrap(); }).unwrap(); }
        println!("inside {:?}", t.elapsed()/n);
        let t=Instant::now();
        for i in 0..10 { let mut b=Batch::new(); b.delete_link(&format!("v{i}")); route.apply(b).unwrap(); }
        println!("delete link {:?}", t.elapsed()/10);
        let t=Instant::now();
        let mut b=Batch::new(); for i in 10..20 { b.delete_link(&format!("v{i}")); } route.apply(b).unwrap();
        println!("delete link in batch {:?}", t.elapsed()/10);
        let t=Instant::now();
        for i in 20..30 { std::process::Command::new("true").status().unwrap(); let _=i; }
        println!("true {:?}", t.elapsed()/10);
        let t=Instant::now(); drop(ns); println!("drop {:?}", t.elapsed());
        let t=Instant::now(); loop { let l=route.links().unwrap().len(); if l<=2 {break} std::thread::sleep(std::time::Duration::from_millis(5)); }
        println!("30 gone after {:?}", t.elapsed());
        Ok(())
    }).unwrap();
}
