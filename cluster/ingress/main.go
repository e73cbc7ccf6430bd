// Command ingress is the cluster's ingress controller: Skipper's proxy fed by its own Kubernetes
// client, with nothing else of Skipper, which keeps the build at a tenth of the whole program's.
//
// It serves every Ingress of class "skipper" over HTTP (with WebSocket) on :8000 and, with the
// certificates of the Ingresses' TLS secrets or else its own, on :8443; :9100 answers 200 once it
// has read the cluster's Ingresses.
package main

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log"
	"math/big"
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

	own, err := ownCertificate()
	if err != nil {
		log.Fatal(err)
	}
	// A client that names no host, or one without a Secret, gets the controller's own certificate.
	certificate := func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		named, err := certificates.GetCertFromHello(hello)
		return cmp.Or(named, own), err
	}

	fail := make(chan error)
	go func() {
		fail <- http.ListenAndServe(":9100", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	}()
	go func() { fail <- http.ListenAndServe(":8000", handler) }()
	go func() {
		server := http.Server{Addr: ":8443", Handler: handler, TLSConfig: &tls.Config{GetCertificate: certificate}}
		fail <- server.ListenAndServeTLS("", "")
	}()
	log.Fatal(<-fail)
}

// Self-signed and made anew with each start.
func ownCertificate() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "the local cluster's own certificate"},
		DNSNames:     []string{"localhost"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(365 * 24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
