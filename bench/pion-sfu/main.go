// Pion-sfu is the yardstick of `cargo xtask bench`: a forwarding server with WHIP in and WHEP out,
// written with Pion the way its examples and its larger users do. One UDP port (SetICEUDPMux),
// ICE-lite, the default codecs and interceptors, a TrackLocalStaticRTP for each track of a device that
// all its viewers share, and a PLI to the device when a viewer joins or asks for one.
//
// It is fair on purpose: large socket buffers, no logging on the path of a packet, nothing that a
// competent user of Pion would leave out for speed. It has no limits and asks for no token, so it is
// no server to run anywhere else.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/transport/v5/udp"
	"github.com/pion/webrtc/v4"
)

// Bytes asked of the kernel for both directions of the media socket, as media-server asks.
const socketBuffer = 4 << 20

// Largest offer that is read.
const maxOffer = 64 << 10

// A device that publishes, with what its viewers attach to.
type device struct {
	publisher *webrtc.PeerConnection
	tracks    []*webrtc.TrackLocalStaticRTP

	mu    sync.Mutex
	ssrcs []uint32 // of the video that has arrived
}

// The sessions, by the last part of their resource's path, and the live devices, by name.
type sfu struct {
	api *webrtc.API

	mu       sync.Mutex
	devices  map[string]*device
	sessions map[string]*webrtc.PeerConnection
}

func main() {
	httpListen := flag.String("http-listen", "127.0.0.1:30006", "address of WHIP and WHEP")
	mediaListen := flag.String("media-listen", "127.0.0.1:8443", "UDP address of media")
	batch := flag.Int("write-batch", 0, "packets that are collected for one sendmmsg, at most 2 ms; 0 sends each at once")
	flag.Parse()

	api, err := newAPI(*mediaListen, *batch)
	if err != nil {
		log.Fatalf("pion-sfu: %v", err)
	}
	s := &sfu{api: api, devices: map[string]*device{}, sessions: map[string]*webrtc.PeerConnection{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /whip/{device}", s.publish)
	mux.HandleFunc("POST /whep/{device}", s.view)
	mux.HandleFunc("DELETE /whip/{device}/{session}", s.end)
	mux.HandleFunc("DELETE /whep/{device}/{session}", s.end)
	server := &http.Server{Addr: *httpListen, Handler: mux, ReadHeaderTimeout: 10 * time.Second}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatalf("pion-sfu: %v", err)
	}
}

// newAPI makes the factory of all connections, which share one UDP socket.
func newAPI(mediaListen string, batch int) (*webrtc.API, error) {
	addr, err := net.ResolveUDPAddr("udp", mediaListen)
	if err != nil {
		return nil, err
	}
	socket, err := net.ListenUDP("udp", addr)
	if err != nil {
		return nil, err
	}
	// Both give what the system allows.
	_ = socket.SetReadBuffer(socketBuffer)
	_ = socket.SetWriteBuffer(socketBuffer)
	var conn net.PacketConn = socket
	if batch > 0 {
		conn = udp.NewBatchConn(socket, batch, 2*time.Millisecond)
	}

	settings := webrtc.SettingEngine{}
	settings.SetLite(true)
	settings.SetICEUDPMux(webrtc.NewICEUDPMux(nil, conn))
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	settings.SetIncludeLoopbackCandidate(addr.IP.IsLoopback())
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)

	media := &webrtc.MediaEngine{}
	if err := media.RegisterDefaultCodecs(); err != nil {
		return nil, err
	}
	interceptors := &interceptor.Registry{}
	if err := webrtc.RegisterDefaultInterceptors(media, interceptors); err != nil {
		return nil, err
	}
	return webrtc.NewAPI(
		webrtc.WithSettingEngine(settings),
		webrtc.WithMediaEngine(media),
		webrtc.WithInterceptorRegistry(interceptors),
	), nil
}

// publish answers a WHIP offer.
func (s *sfu) publish(w http.ResponseWriter, r *http.Request) {
	offer, ok := readOffer(w, r)
	if !ok {
		return
	}
	pc, err := s.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		fail(w, nil, http.StatusInternalServerError, err)
		return
	}
	name := r.PathValue("device")
	d := &device{publisher: pc}
	byKind := map[webrtc.RTPCodecType]*webrtc.TrackLocalStaticRTP{}
	pc.OnTrack(func(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
		if remote.Kind() == webrtc.RTPCodecTypeVideo {
			d.mu.Lock()
			d.ssrcs = append(d.ssrcs, uint32(remote.SSRC()))
			d.mu.Unlock()
		}
		go drain(receiver.Read)
		forward(remote, byKind[remote.Kind()])
	})
	if err := pc.SetRemoteDescription(offer); err != nil {
		fail(w, pc, http.StatusBadRequest, err)
		return
	}
	answer, err := answer(pc)
	if err != nil {
		fail(w, pc, http.StatusBadRequest, err)
		return
	}
	// Viewers may join before the first packet, so tracks are made from what was agreed on.
	for _, transceiver := range pc.GetTransceivers() {
		codecs := transceiver.Receiver().GetParameters().Codecs
		if len(codecs) == 0 {
			continue
		}
		track, err := webrtc.NewTrackLocalStaticRTP(codecs[0].RTPCodecCapability, transceiver.Kind().String(), name)
		if err != nil {
			fail(w, pc, http.StatusInternalServerError, err)
			return
		}
		d.tracks = append(d.tracks, track)
		byKind[transceiver.Kind()] = track
	}

	s.mu.Lock()
	before := s.devices[name]
	s.devices[name] = d
	s.mu.Unlock()
	if before != nil {
		_ = before.publisher.Close()
	}
	id := s.keep(pc, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.devices[name] == d {
			delete(s.devices, name)
		}
	})
	created(w, r, id, answer)
}

// view answers a WHEP offer.
func (s *sfu) view(w http.ResponseWriter, r *http.Request) {
	offer, ok := readOffer(w, r)
	if !ok {
		return
	}
	s.mu.Lock()
	d := s.devices[r.PathValue("device")]
	s.mu.Unlock()
	if d == nil {
		w.Header().Set("Retry-After", "2")
		http.Error(w, "nobody publishes this device", http.StatusConflict)
		return
	}
	pc, err := s.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		fail(w, nil, http.StatusInternalServerError, err)
		return
	}
	for _, track := range d.tracks {
		sender, err := pc.AddTrack(track)
		if err != nil {
			fail(w, pc, http.StatusInternalServerError, err)
			return
		}
		go d.serveRequests(sender)
	}
	if err := pc.SetRemoteDescription(offer); err != nil {
		fail(w, pc, http.StatusBadRequest, err)
		return
	}
	answer, err := answer(pc)
	if err != nil {
		fail(w, pc, http.StatusBadRequest, err)
		return
	}
	id := s.keep(pc, func() {}, d.requestKeyframe)
	created(w, r, id, answer)
}

// end answers a DELETE of either kind.
func (s *sfu) end(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	pc := s.sessions[r.PathValue("session")]
	s.mu.Unlock()
	if pc == nil {
		http.NotFound(w, r)
		return
	}
	_ = pc.Close()
	w.WriteHeader(http.StatusOK)
}

// keep remembers a session until it is over, and calls connected once media can flow.
func (s *sfu) keep(pc *webrtc.PeerConnection, over func(), connected ...func()) string {
	bytes := make([]byte, 16)
	_, _ = rand.Read(bytes)
	id := hex.EncodeToString(bytes)
	s.mu.Lock()
	s.sessions[id] = pc
	s.mu.Unlock()
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		switch state {
		case webrtc.PeerConnectionStateConnected:
			for _, call := range connected {
				call()
			}
		case webrtc.PeerConnectionStateFailed:
			_ = pc.Close()
		case webrtc.PeerConnectionStateClosed:
			s.mu.Lock()
			delete(s.sessions, id)
			s.mu.Unlock()
			over()
		}
	})
	return id
}

// requestKeyframe sends a PLI for each video of the device.
func (d *device) requestKeyframe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, ssrc := range d.ssrcs {
		_ = d.publisher.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: ssrc}})
	}
}

// serveRequests reads a viewer's RTCP, without which the interceptors see none, and hands its
// keyframe requests on.
func (d *device) serveRequests(sender *webrtc.RTPSender) {
	for {
		packets, _, err := sender.ReadRTCP()
		if err != nil {
			return
		}
		for _, packet := range packets {
			switch packet.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				d.requestKeyframe()
			}
		}
	}
}

// forward copies a device's packets to all viewers of the track.
func forward(from *webrtc.TrackRemote, to *webrtc.TrackLocalStaticRTP) {
	if to == nil {
		return
	}
	buffer := make([]byte, 1500)
	for {
		n, _, err := from.Read(buffer)
		if err != nil {
			return
		}
		// A viewer that is being closed must not stop the others.
		if _, err := to.Write(buffer[:n]); err != nil && errors.Is(err, io.ErrClosedPipe) {
			continue
		}
	}
}

func drain(read func([]byte) (int, interceptor.Attributes, error)) {
	buffer := make([]byte, 1500)
	for {
		if _, _, err := read(buffer); err != nil {
			return
		}
	}
}

// answer makes the answer with every candidate in it.
func answer(pc *webrtc.PeerConnection) (string, error) {
	gathered := webrtc.GatheringCompletePromise(pc)
	answer, err := pc.CreateAnswer(nil)
	if err != nil {
		return "", err
	}
	if err := pc.SetLocalDescription(answer); err != nil {
		return "", err
	}
	<-gathered
	return pc.LocalDescription().SDP, nil
}

func readOffer(w http.ResponseWriter, r *http.Request) (webrtc.SessionDescription, bool) {
	if r.Header.Get("Content-Type") != "application/sdp" {
		http.Error(w, "the content type is not application/sdp", http.StatusUnsupportedMediaType)
		return webrtc.SessionDescription{}, false
	}
	offer, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxOffer))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return webrtc.SessionDescription{}, false
	}
	return webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: string(offer)}, true
}

func created(w http.ResponseWriter, r *http.Request, id, answer string) {
	w.Header().Set("Content-Type", "application/sdp")
	w.Header().Set("Location", r.URL.Path+"/"+id)
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, answer)
}

func fail(w http.ResponseWriter, pc *webrtc.PeerConnection, status int, err error) {
	if pc != nil {
		_ = pc.Close()
	}
	http.Error(w, err.Error(), status)
}
