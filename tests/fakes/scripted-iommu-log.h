// SPDX-License-Identifier: BSD-2-Clause
// An IommuDirtyLog that a test writes into and lets fail.
#pragma once

#include <cstdint>
#include <set>

#include "hw/vfio/iommu-dirty-log.h"
#include "system/memory.h"
#include "util/try.h"

namespace ferry::test {

// The test looks and writes between calls.
class ScriptedIommuLog final : public vfio::IommuDirtyLog {
 public:
    // A device writes the page at `iova`.
    void dma(uint64_t iova) { written_.insert(iova); }

    Consent its_consent = Consent::NotNeeded;
    int start_errnum = 0, query_errnum = 0;
    unsigned starts = 0, stops = 0, queries = 0;

    std::string_view name() const override { return "scripted IOMMU"; }
    Consent consent() const override { return its_consent; }
    Result<> start() override {
        if (start_errnum != 0) return make_errno(start_errnum, "IOMMU log start");
        ++starts;
        return {};
    }
    Result<> stop() override {
        ++stops;
        return {};
    }
    Result<> query(vfio::DmaLogRange range, util::Bitmap& out) override {
        ++queries;
        if (query_errnum != 0) return make_errno(query_errnum, "IOMMU log query");
        std::erase_if(written_, [&](uint64_t iova) {
            const bool inside = iova >= range.iova && iova - range.iova < range.length;
            if (inside) out.set((iova - range.iova) / system::kPageSize);
            return inside;
        });
        return {};
    }

 private:
    std::set<uint64_t> written_;
};

}  // namespace ferry::test
