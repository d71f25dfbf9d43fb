// SPDX-License-Identifier: BSD-2-Clause
// An address space of iommufd (IOAS), the page tables over it (HWPT), and what they know of writes.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "hw/vfio/container.h"
#include "hw/vfio/iommu-dirty-log.h"
#include "hw/vfio/iommufd.h"
#include "util/env.h"

namespace ferry::vfio {

class IommufdContainer;

// What the hardware notes in one page table.
class HwptDirtyLog final : public IommuDirtyLog {
 public:
    HwptDirtyLog(IommufdContainer& container, IommufdId page_table)
        : container_(container), page_table_(page_table) {}

    std::string_view name() const override;
    Consent consent() const override { return Consent::NotNeeded; }
    Result<> start() override;
    Result<> stop() override;
    Result<> query(DmaLogRange range, util::Bitmap& out) override;

    // The container, which holds its lock.
    bool started() const { return started_; }
    Result<> peek(DmaLogRange range, util::Bitmap& out) const;  // does not clear

 private:
    Result<> check_mapped(DmaLogRange range) const;

    IommufdContainer& container_;
    const IommufdId page_table_;
    bool started_ = false;  // container's lock
};

struct IommufdPageTable {
    IommufdId id;
    std::unique_ptr<HwptDirtyLog> log;  // null: the IOMMU can't
    unsigned devices = 0;
};

// Any thread; calls wait for each other. Empty of devices before it goes.
class IommufdContainer final : public DmaContainer {
 public:
    // `id`: of the object that iommufd is, for messages. `iommufd` outlives the container.
    static Result<std::unique_ptr<IommufdContainer>> create(Iommufd& iommufd, std::string id);
    // Leaves nothing in an iommufd that somebody else may go on using.
    ~IommufdContainer() override;
    IommufdContainer(const IommufdContainer&) = delete;
    IommufdContainer& operator=(const IommufdContainer&) = delete;

    // Puts a bound device into the space, under a page table that tracks writes if its IOMMU can.
    Result<IommufdPageTable*> attach(BorrowedFd device, IommufdId device_id);  // null: software
    // The device has been closed, which detached it.
    void closed(IommufdPageTable* page_table);
    static IommuDirtyLog* dirty_log(IommufdPageTable* page_table);  // may be null

    std::string_view name() const override { return name_; }
    Result<> dma_map(system::Iova iova, MutBytes host, MapAccess access) override;
    Result<> dma_unmap(system::Iova iova, uint64_t length) override;
    Result<> dma_unmap_written(system::Iova iova, uint64_t length, util::Bitmap& written) override;

 private:
    friend class HwptDirtyLog;
    IommufdContainer(Iommufd& iommufd, IommufdId ioas, std::string id)
        : iommufd_(iommufd), ioas_(ioas), name_("iommufd '" + id + "'") {}

    Result<IommufdPageTable*> join_page_table(BorrowedFd device);
    Result<IommufdPageTable*> create_page_table(BorrowedFd device, IommufdId device_id,
                                                bool tracks);
    bool rescue(system::Iova iova, uint64_t length, util::Bitmap& written);

    Iommufd& iommufd_;
    const IommufdId ioas_;
    const std::string name_;
    std::mutex mutex_;  // all below; held across calls, so that a mapping stays while asked about
    std::list<IommufdPageTable> page_tables_;
    std::map<system::Iova, uint64_t> mappings_;
    bool has_software_devices_ = false;  // which no page table sees
};

}  // namespace ferry::vfio
