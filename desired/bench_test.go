// SPDX-License-Identifier: Apache-2.0

package desired

import "testing"

// document800 is a document of about 800 bytes, as people write them.
const document800 = `# The service that takes reservations.
apiVersion: plumbline.dev/v1
kind: Repository
metadata:
  name: reservations-api
  labels:
    module: module-reservations-api
    team: booking
    cost-centre: cc-4711
  annotations:
    owner: booking@example.com
  dependsOn:
    - Repository/platform-base
spec:
  provider: AzureDevOps
  moduleId: module-reservations-api
  description: |
    Takes, changes and cancels reservations.
    Runbook: see the wiki of the booking team.
  defaultBranch: main      # never master
  visibility: private
  protection:
    - pattern: main
      requirePullRequest: true
      requiredChecks: [build, policy-gate]
      requiredApprovals: 1
    - pattern: release/*
      requirePullRequest: true
  sync:
    apply: automatic
    drift: report
  deletionPolicy: retain
`

func BenchmarkParseFile(b *testing.B) {
	p := Place{Tenant: "acme", Path: "projects/booking/web.yaml"}
	b.SetBytes(int64(len(document800)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseFile(p, []byte(document800)); err != nil {
			b.Fatal(err)
		}
	}
}
