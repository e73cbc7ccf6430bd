// Command ingress is the cluster's ingress controller: Skipper's proxy fed by its own Kubernetes
// client, with nothing else of Skipper, which keeps the build at a tenth of the whole program's.
//
// It serves every Ingress of class "skipper" over HTTP (with WebSocket) on :8000 and, with the
// certificates of the Ingresses' TLS secrets, on :8443; :9100 answers 200 once it has read the
// cluster's Ingresses.
package main

import (
	"crypto/tls"
	"log"
	"net/http"
	"time"

	"github.com/zalando/skipper/dataclients/kubernetes"
	"github.com/zalando/skipper/filters"
	"github.com/zalando/skipper/loadbalancer"
	"github.com/zalando/skipper/predicates/traffic"
	"github.com/zalando/skipper/proxy"
	"github.com/zalando/skipper/routing"
	"github.com/zalando/skipper/secrets/certregistry"
)

func main() {
	certificates := certregistry.NewCertRegistry()
	client, err := kubernetes.New(kubernetes.Options{
		KubernetesInCluster:            true,
		KubernetesEnableEndpointslices: true,
		IngressClass:                   "^skipper$",
		PathMode:                       kubernetes.PathPrefix,
		CertificateRegistry:            certificates,
		BackendTrafficAlgorithm:        kubernetes.TrafficPredicateAlgorithm,
		DefaultLoadBalancerAlgorithm:   "roundRobin",
	})
	if err != nil {
		log.Fatal(err)
	}
	endpoints := routing.NewEndpointRegistry(routing.RegistryOptions{})
	routes := routing.New(routing.Options{
		FilterRegistry:  make(filters.Registry),
		Predicates:      []routing.PredicateSpec{traffic.New()},
		DataClients:     []routing.DataClient{client},
		PollTimeout:     1000 * time.Millisecond,
		MatchingOptions: routing.IgnoreTrailingSlash,
		UpdateBuffer:    32,
		SignalFirstLoad: true,
		PostProcessors:  []routing.PostProcessor{loadbalancer.NewAlgorithmProvider(), endpoints},
	})
	handler := proxy.WithParams(proxy.Params{
		Routing:             routes,
		EndpointRegistry:    endpoints,
		ExperimentalUpgrade: true,
		AccessLogDisabled:   true,
		Timeout:             5 * time.Second,
		KeepAlive:           30 * time.Second,
	})
	<-routes.FirstLoad()

	fail := make(chan error)
	go func() { fail <- http.ListenAndServe(":9100", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})) }()
	go func() { fail <- http.ListenAndServe(":8000", handler) }()
	go func() {
		server := http.Server{Addr: ":8443", Handler: handler, TLSConfig: &tls.Config{GetCertificate: certificates.GetCertFromHello}}
		fail <- server.ListenAndServeTLS("", "")
	}()
	log.Fatal(<-fail)
}
