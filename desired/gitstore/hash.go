// SPDX-License-Identifier: Apache-2.0

package gitstore

// HashBlob is the object id that data has as a blob, without storing it.
func HashBlob(data []byte) Hash { return hashObject(BlobObject, data) }
