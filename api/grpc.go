// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime/debug"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that ours stands on
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/connectsoft/plumbline/api/auth"
	"github.com/connectsoft/plumbline/api/pb"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/reconciler/plan"
	"github.com/connectsoft/plumbline/reconciler/state"
)

// resumeTrailer carries the resume token of a stream that the server ended.
const resumeTrailer = "plumbline-resume-token"

// maxMessage is the size of a stream message beyond which the rest of an update goes into the next one.
const maxMessage = 64 << 10

// newGRPC builds the gRPC server with its limits.
func (s *Server) newGRPC() *grpc.Server {
	g := grpc.NewServer(
		grpc.MaxConcurrentStreams(250),
		grpc.MaxHeaderListSize(16<<10),
		grpc.MaxRecvMsgSize(1<<20),
		grpc.MaxSendMsgSize(4<<20),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second, MaxConnectionAge: 30 * time.Minute, MaxConnectionAgeGrace: 5 * time.Minute,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 20 * time.Second, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
		grpc.WriteBufferSize(maxMessage),
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2("proto")}),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
	)
	pb.RegisterGitOpsSyncServer(g, gitOpsSync{s: s})
	healthpb.RegisterHealthServer(g, s.health)
	s.health.SetServingStatus(pb.GitOpsSync_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_SERVING)
	return g
}

// codec is the protobuf codec that also takes messages which are encoded already.
type codec struct{ encoding.CodecV2 }

type encoded struct{ data mem.Buffer }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if e, ok := v.(encoded); ok {
		return mem.BufferSlice{e.data}, nil
	}
	return c.CodecV2.Marshal(v)
}

// authorizeRPC is a call on its way in: it is authenticated and authorized by the row of its exact method.
func (s *Server) authorizeRPC(ctx context.Context, full string) (context.Context, *requestInfo, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	info := &requestInfo{trace: newTrace()}
	if v := md.Get("traceparent"); len(v) == 1 {
		info.trace = traceOf(v[0])
	}
	ctx = context.WithValue(ctx, infoKey{}, info)
	op := s.cfg.Auth.RPC(full)
	if op == nil {
		return ctx, info, s.cfg.Auth.Allow(nil, nil)
	}
	info.operation = op.ID
	if op.Public {
		return ctx, info, nil
	}
	who, err := s.cfg.Auth.Bearer(ctx, md.Get("authorization"))
	if err != nil {
		return ctx, info, err
	}
	info.who = who
	return auth.With(ctx, who), info, s.cfg.Auth.Allow(who, op)
}

func (s *Server) unary(ctx context.Context, req any, i *grpc.UnaryServerInfo, next grpc.UnaryHandler) (res any, err error) {
	err = s.serveRPC(ctx, "unary", i.FullMethod, func(ctx context.Context) (err error) {
		res, err = next(ctx, req)
		return err
	})
	return res, err
}

func (s *Server) stream(srv any, ss grpc.ServerStream, i *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return s.serveRPC(ss.Context(), "server_stream", i.FullMethod, func(ctx context.Context) error {
		return next(srv, stream{ss, ctx})
	})
}

// stream is a ServerStream with the caller in its context.
type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s stream) Context() context.Context { return s.ctx }

// serveRPC authorizes, counts and serves one call; a panic of its handler becomes an internal error.
func (s *Server) serveRPC(ctx context.Context, kind, full string, serve func(context.Context) error) (err error) {
	began := s.cfg.Now()
	labels := method(kind, full)
	s.metrics.rpcStarted.WithLabelValues(labels...).Inc()
	ctx, info, err := s.authorizeRPC(ctx, full)
	defer func() {
		if v := recover(); v != nil {
			if s.cfg.Events.Panic != nil {
				s.cfg.Events.Panic(info.operation, v, debug.Stack())
			}
			err = errors.New("panic in handler")
		}
		err = rpcError(err, info)
		code := status.Code(err).String()
		took := s.cfg.Now().Sub(began)
		s.metrics.rpc(labels, code, took)
		if s.cfg.Events.Request != nil {
			e := RequestEvent{Operation: info.operation, Method: "gRPC", Code: code, TraceID: info.trace, Took: took, Err: info.err}
			if info.who != nil {
				e.Tenant, e.Subject = info.who.Tenant, info.who.Subject
			}
			s.cfg.Events.Request(e)
		}
	}()
	if err != nil {
		return err
	}
	return serve(ctx)
}

// rpcError turns an error into its gRPC status, with the code, the trace id and the faults as details.
func rpcError(err error, info *requestInfo) error {
	if err == nil {
		return nil
	}
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	if errors.Is(err, context.Canceled) {
		return status.Error(codes.Canceled, "the caller went away")
	}
	v := judge(place(err))
	if v.err.Class == desired.Internal {
		info.err = err
	}
	st := status.New(v.rpc, detail(v))
	bad := &errdetails.BadRequest{}
	for _, f := range v.err.Fields {
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: f.Pointer, Description: f.Detail})
	}
	why := &errdetails.ErrorInfo{Reason: string(v.code), Domain: "plumbline.dev", Metadata: map[string]string{"traceId": info.trace}}
	with, err := st.WithDetails(why)
	if err == nil && len(bad.FieldViolations) > 0 {
		with, err = with.WithDetails(bad)
	}
	if err != nil {
		return st.Err()
	}
	return with.Err()
}

// gitOpsSync is the service plumbline.v1.GitOpsSync.
type gitOpsSync struct {
	pb.UnimplementedGitOpsSyncServer
	s *Server
}

// WatchSyncState streams sync states, and findings where asked for.
func (g gitOpsSync) WatchSyncState(req *pb.WatchSyncStateRequest, ss grpc.ServerStreamingServer[pb.WatchSyncStateResponse]) error {
	ctx := ss.Context()
	who, ok := auth.From(ctx)
	if !ok {
		return g.s.cfg.Auth.Allow(nil, nil)
	}
	repo, err := g.s.cfg.Repo(ctx, who.Tenant)
	if err != nil {
		return err
	}
	kinds, err := kindSet(req.GetKinds())
	if err != nil {
		return err
	}
	ids, err := refIDs(who.Tenant, req.GetResources())
	if err != nil {
		return err
	}
	tables := []state.Table{state.States}
	if req.GetFindings() {
		tables = append(tables, state.Findings)
	}
	sent := g.s.metrics.rpcSent.WithLabelValues(method("server_stream", pb.GitOpsSync_WatchSyncState_FullMethodName)...)
	resume, err := g.s.watch(ctx, watch{
		who: who, repo: repo, transport: grpcTransport, tables: tables, project: req.GetProject(), kinds: kinds, ids: ids,
		after: req.GetResumeAfter(), minCommit: req.GetMinCommit(),
		deliver: func(u state.Update) error {
			return sendUpdate(u, func(data mem.Buffer) error {
				sent.Inc()
				return ss.SendMsg(encoded{data})
			})
		},
	})
	if resume != "" {
		ss.SetTrailer(metadata.Pairs(resumeTrailer, resume))
	}
	return err
}

// sendUpdate packs an update into messages of about 64 KiB. Each event is encoded once for all streams; a message is
// those encodings one after another, which is how protobuf writes a repeated field.
func sendUpdate(u state.Update, send func(mem.Buffer) error) error {
	pool := mem.DefaultBufferPool()
	first := true
	items := u.Items
	for {
		n, size := 0, 0
		for n < len(items) {
			chunk := eventChunk(items[n])
			if n > 0 && size+len(chunk) > maxMessage {
				break
			}
			size += len(chunk)
			n++
		}
		rest := &pb.WatchSyncStateResponse{More: n < len(items)}
		if first && u.Reset {
			rest.Reset_ = &pb.Reset{Reason: u.Why}
		}
		if !rest.GetMore() {
			rest.ResumeToken = u.Token.String()
			rest.Horizon = &pb.Horizon{Seq: u.Horizon.Seq, Commit: u.Horizon.Commit}
			if !u.Horizon.At.IsZero() {
				rest.Horizon.At = timestamppb.New(u.Horizon.At)
			}
		}
		buf := pool.Get(size + proto.Size(rest))
		data := (*buf)[:0]
		for _, i := range items[:n] {
			data = append(data, eventChunk(i)...)
		}
		data, err := proto.MarshalOptions{}.MarshalAppend(data, rest)
		if err != nil {
			return err
		}
		*buf = data
		if err := send(mem.NewBuffer(buf, pool)); err != nil {
			return err
		}
		if items, first = items[n:], false; len(items) == 0 {
			return nil
		}
	}
}

// eventChunk is an item as one element of WatchSyncStateResponse.events, tag and length included.
func eventChunk(i *state.Item) []byte {
	chunk, _ := i.Memo(grpcTransport, func() any {
		raw, err := proto.Marshal(eventOf(i))
		if err != nil {
			return []byte(nil)
		}
		const tag = 1<<3 | 2 // field 1, length-delimited
		return append(binary.AppendUvarint([]byte{tag}, uint64(len(raw))), raw...)
	}).([]byte)
	return chunk
}

func eventOf(i *state.Item) *pb.Event {
	e := &pb.Event{Deleted: i.Deleted}
	switch {
	case i.State != nil:
		s := i.State
		e.Object = &pb.Event_SyncState{SyncState: &pb.SyncState{
			Id: s.Ref.ID(), Ref: refMessage(s.Ref), Phase: string(s.Phase), Health: s.Health, Reason: s.Reason, Message: s.Message,
			DesiredSeq: s.DesiredSeq, DesiredCommit: s.DesiredCommit, AppliedSeq: s.AppliedSeq, AppliedCommit: s.AppliedCommit,
			Since: moment(s.Since), Findings: uint32(s.Findings), Outputs: s.Outputs,
		}}
	case i.Finding != nil:
		e.Object = &pb.Event_Finding{Finding: findingMessage(i.Finding)}
	}
	return e
}

func findingMessage(f *plan.Finding) *pb.Finding {
	return &pb.Finding{
		Id: f.ID, ResourceId: f.Ref.ID(), Ref: refMessage(f.Ref), Kind: f.Kind, Subject: f.Subject, Field: f.Field,
		Desired: f.Desired, Actual: f.Actual, Severity: string(f.Severity), Cause: string(f.Cause), Message: f.Message,
		SourceCommit: f.Source.Commit, SourcePath: f.Source.Path, SourceLine: uint32(f.Source.Line), SourceAuthor: f.Source.Author,
		FirstSeen: moment(f.FirstSeen), ClosedAt: moment(f.ClosedAt), ResolvedBy: f.ResolvedBy,
		Occurrences: uint32(f.Occurrences), Contested: f.Contested,
	}
}

func refMessage(r desired.Ref) *pb.Ref {
	return &pb.Ref{Tenant: r.Tenant, Project: r.Project, Kind: string(r.Kind), Name: r.Name}
}

func moment(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
